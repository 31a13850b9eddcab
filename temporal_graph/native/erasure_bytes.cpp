// The writer's part that gives up what an erasure has taken out of use: strings that no cell holds any more, versions,
// inline records. Their bytes are overwritten once no reader can reach them.
#include "writer.hpp"

namespace nowgraph {

// Whether the row's inline insert is one of its versions, or was replaced by one: it is not there, or was purged.
bool Writer::inline_counts(const TableHeader& table, const char* record) const {
  if (Reader::inline_bare(table, record)) return false;
  if (erasures_.empty()) return true;
  const u32 head = Reader::version_head(table, record).load(std::memory_order_relaxed);
  if (is_dropped(head)) return true;
  bool purged = false;
  each_unit(head, [&](u32 unit) { purged |= reader_.version(unit)->operation == static_cast<u8>(Operation::erase); });
  return !purged;
}

// The end of a purged row's chain: it says that the inline insert is none.
u32 Writer::write_mark() {
  const u32 unit = version_units(sizeof(VersionRecord) + sizeof(DiskCells));
  auto& mark = *reinterpret_cast<VersionRecord*>(graph_.versions.item(arena_, unit));
  *reinterpret_cast<DiskCells*>(&mark + 1) = {0, 0, 0};  // whichever table it is of
  mark.next.store(NO_VERSION, std::memory_order_relaxed);
  mark.operation = static_cast<u8>(Operation::erase);
  mark.flags.store(REPLACES_INLINE, std::memory_order_relaxed);
  mark.cell_count = 0;
  mark.event_time_us = mark.known_time_us = ALWAYS_US;
  mark.sequence = mark.content = 0;
  arena_.written(&mark, sizeof mark + sizeof(DiskCells));
  return unit;
}

// One cell less holds the code's string.
void Writer::release_code(TableHeader& table, const ColumnHeader& column, u32 code) {
  const Dictionary& dictionary = *reader_.dictionary(column);
  CodeEntry& entry = code_entry(dictionary, code);
  --entry.uses;
  arena_.written(&entry, sizeof entry);
  if (entry.uses > 0) return;
  const std::string_view text = reader_.string_of(dictionary, code);
  map_erase(dictionary.map, hash_bytes(text.data(), text.size()), code);
  overwrite_later(text.data() - 4, 4 + static_cast<u32>(text.size()));
  table.erased.strings.fetch_add(1, std::memory_order_relaxed);
}

void Writer::release_version(TableHeader& table, u32 unit) {
  const VersionRecord& version = *reader_.version(unit);
  each_code(table, version, [&](const ColumnHeader& column, u32 code) { release_code(table, column, code); });
  u32 bytes = sizeof(VersionRecord);
  if (table.columns_on_disk) {
    const DiskCells& cells = Reader::disk_cells(version);
    if (cells.count > 0) overwrite_cells_later(cells.offset, cells.bytes);
    bytes += sizeof(DiskCells);
  }
  reader_.each_cell(table, version, [&](u32 index, const char* payload) {
    if (!table.columns_on_disk || index >= table.column_count) bytes += 4 + (payload == nullptr ? 0 : (reader_.payload_bytes(table, index) + 3) / 4 * 4);
  });
  versions_ -= version.operation != static_cast<u8>(Operation::erase);
  overwrite_later(&version, bytes);
}

void Writer::release_inline(u32 table_index, TableHeader& table, char* record) {
  const ColumnHeader* columns = reader_.columns(table);
  for (u32 c = 0; c < table.column_count; ++c)
    if (const char* payload = reader_.inline_cell(table, record, c); columns[c].kind == Kind::coded && payload != nullptr)
      release_code(table, columns[c], load<u32>(payload));
  // Slot 0 is that of all rows without cells.
  if (table.columns_on_disk && load<u32>(record + table.cells_offset) != 0)
    overwrite_cells_later(static_cast<u64>(reader_.cells(table, record) - arena_.columns_at(0)), table.slots.stride);
  overwrite_later(record + table.event_offset, 16, table_index, table.event_offset);
  overwrite_later(record + table.parents_offset, table.stride - table.parents_offset, table_index, table.parents_offset);
}

void Writer::overwrite_later(const void* at, u32 bytes, u32 table, u32 from) {
  const u64 offset = static_cast<u64>(static_cast<const char*>(at) - arena_.at<char>(0));
  overwrites_.push_back({offset, arena_.header().epoch.load(std::memory_order_relaxed), bytes, table, from, 0});
}

void Writer::overwrite_cells_later(u64 offset, u32 bytes) {
  overwrites_.push_back({offset, arena_.header().epoch.load(std::memory_order_relaxed), bytes, NONE, 0, 1});
}

// Overwrites what is older than the epoch.
void Writer::overwrite(u64 oldest_epoch) {
  std::size_t done = 0;
  for (; done < overwrites_.size() && overwrites_[done].epoch < oldest_epoch; ++done) {
    const Overwrite& each = overwrites_[done];
    char* to = each.on_disk ? arena_.columns_at(each.offset) : arena_.at<char>(each.offset);
    if (each.table == NONE)
      std::memset(to, 0, each.bytes);
    else
      std::memcpy(to, states_[each.table].blank.data() + each.from, each.bytes);
    if (each.on_disk)
      cells_written(to, each.bytes);
    else
      arena_.written(to, each.bytes);
  }
  overwrites_.erase(overwrites_.begin(), overwrites_.begin() + static_cast<std::ptrdiff_t>(done));
  graph_.overwrites_due.store(overwrites_.size(), std::memory_order_release);
}

}  // namespace nowgraph
