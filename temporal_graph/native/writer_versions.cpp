// The writer's part that knows about time: where an entry stands in its list, where a change stands among a row's
// versions, and which links a change opens.
#include <tuple>

#include "content.hpp"
#include "writer.hpp"

namespace nowgraph {

int Writer::compare_keys(const TableHeader& table, u32 a, u32 b) const {
  if (a == b) return 0;
  const char* left = reader_.key(table, a);
  const char* right = reader_.key(table, b);
  if (table.key_kind == KeyKind::integer) return load<i64>(left) < load<i64>(right) ? -1 : 1;
  std::string_view x = reader_.string_at(load<u64>(left));
  std::string_view y = reader_.string_at(load<u64>(right));
  if (table.key_parts == 1) return x.compare(y);
  for (u32 part = 0; part < table.key_parts; ++part) {  // tagged parts: integers by value, texts by bytes
    if (x[0] == 2) {
      const i64 i = load<i64>(x.data() + 1), j = load<i64>(y.data() + 1);
      if (i != j) return i < j ? -1 : 1;
      x.remove_prefix(9);
      y.remove_prefix(9);
    } else {
      const std::string_view s = x.substr(5, load<u32>(x.data() + 1)), t = y.substr(5, load<u32>(y.data() + 1));
      if (const int order = s.compare(t); order != 0) return order;
      x.remove_prefix(5 + s.size());
      y.remove_prefix(5 + t.size());
    }
  }
  return 0;
}

bool Writer::same_tick_before(const TableHeader& child, Entry a, Entry b) const {
  const i64 left = reader_.open_time_us(child, a), right = reader_.open_time_us(child, b);
  if (left != right) return left < right;
  return compare_keys(child, reader_.child(a), reader_.child(b)) < 0;
}

void Writer::put_entry(const LinkHeader& link, u32 parent_row, Entry entry) {
  const TableHeader& child = table_of(link.child);
  put_entry(child, list_word_in(table_of(link.parent).rows.item(arena_, parent_row), link), entry);
}

// ---- versions ------------------------------------------------------------------------------------------------------

u32 Writer::version_units(u32 bytes) {
  const u32 units = (bytes + VERSION_UNIT_BYTES - 1) / VERSION_UNIT_BYTES;
  if (version_next_ + units > version_end_) {
    const u32 first = graph_.versions.chunk_count << VERSION_CHUNK_LOG2;
    if (first >= NO_VERSION - (1u << VERSION_CHUNK_LOG2)) throw ArenaFull("the version pool is full");
    grow_chunks(graph_.versions);
    version_next_ = first;
    version_end_ = first + (1u << VERSION_CHUNK_LOG2);
  }
  const u32 unit = version_next_;
  version_next_ += units;
  version_bytes_ += u64{units} * VERSION_UNIT_BYTES;
  return unit;
}

u32 Writer::write_version(u32 table_index, TableHeader& table, const RowChange& change) {
  const u32 total = table.column_count + table.link_count;
  const bool whole = change.operation == Operation::insert, apart = table.columns_on_disk;
  u32 column_bytes = 0, link_bytes = 0;
  for (const CellValue& cell : change.cells)
    (cell.index < table.column_count ? column_bytes : link_bytes) += (reader_.payload_bytes(table, cell.index) + 3) / 4 * 4;
  const auto is_column = [&](const CellValue& cell) { return cell.index < table.column_count; };
  const u32 given_columns = static_cast<u32>(std::count_if(change.cells.begin(), change.cells.end(), is_column));
  column_bytes += 4 * (whole ? table.column_count : given_columns);
  link_bytes += 4 * (whole ? table.link_count : static_cast<u32>(change.cells.size()) - given_columns);
  const u32 unit = version_units(sizeof(VersionRecord) + link_bytes + (apart ? u32{sizeof(DiskCells)} : column_bytes));
  char* at = graph_.versions.item(arena_, unit);
  auto* version = reinterpret_cast<VersionRecord*>(at);
  char* const inlined = at + sizeof(VersionRecord) + (apart ? sizeof(DiskCells) : 0);
  char* cursor = inlined;
  if (apart) {
    const u64 offset = column_bytes == 0 ? 0 : take_version_cells(column_bytes);
    const u32 count = whole ? table.column_count : given_columns;
    *reinterpret_cast<DiskCells*>(version + 1) = {offset, count, column_bytes};
    cursor = arena_.columns_at(offset);
  }
  char* const first = cursor;
  u8 flags = 0;
  u16 count = 0;
  auto cell = change.cells.begin();
  for (u32 index = 0; index < total; ++index) {
    if (apart && index == table.column_count) cursor = inlined;
    const bool given = cell != change.cells.end() && cell->index == index;
    if (!given && !whole) continue;
    const bool is_null = !given || cell->is_null;
    store<u16>(cursor, static_cast<u16>(index));
    store<u16>(cursor + 2, is_null);
    cursor += 4;
    if (!is_null) cursor += (store_cell(table_index, table, *cell, cursor) + 3) / 4 * 4;
    if (index >= table.column_count) flags |= SETS_LINKS;
    if (given) ++cell;
    ++count;
  }
  if (apart && column_bytes > 0) cells_written(first, column_bytes);
  version->operation = static_cast<u8>(change.operation);
  version->flags.store(flags, std::memory_order_relaxed);
  version->cell_count = count;
  version->event_time_us = change.event_time_us;
  version->known_time_us = change.known_time_us;
  version->sequence = sequence_;
  ContentHash hash;
  for (u32 index = 0; index < total; ++index)
    if (const CellRef ref = reader_.version_cell(table, *version, index); ref.set && change.operation != Operation::remove)
      hash_cell(reader_, table, index, ref.payload, hash);
  version->content = hash.value();
  arena_.written(at, u64{version_next_ - unit} * VERSION_UNIT_BYTES);
  return unit;
}

// Puts the version at its place in the row's chain. False when the row has it already, known no later. Whose record it is
// says that it was written: the record may lie beside the arena.
bool Writer::chain_version(TableHeader& table, char* record, u32 unit) {
  auto& version = *reinterpret_cast<VersionRecord*>(graph_.versions.item(arena_, unit));
  auto& head = Reader::version_head(table, record);
  const bool bare = !inline_counts(table, record);
  if (!bare && version.operation == static_cast<u8>(Operation::insert) &&
      Reader::inline_event_us(table, record) == version.event_time_us &&
      reader_.inline_content(table, record) == version.content) {
    if (Reader::inline_known_us(table, record) <= version.known_time_us) return false;
    version.flags.fetch_or(REPLACES_INLINE, std::memory_order_relaxed);
  }
  const auto next = [](const std::atomic<u32>* link) { return version_unit(link->load(std::memory_order_relaxed)); };
  const auto record_of = [&](u32 at) { return reinterpret_cast<VersionRecord*>(graph_.versions.item(arena_, at)); };
  VersionRecord* superseded = nullptr;  // the same change, known later: who is pinned at it goes on seeing it
  for (std::atomic<u32>* link = &head; next(link) != NO_VERSION; link = &record_of(next(link))->next) {
    VersionRecord& other = *record_of(next(link));
    if (other.event_time_us != version.event_time_us || other.operation != version.operation ||
        other.content != version.content)
      continue;
    if (other.known_time_us <= version.known_time_us) return false;
    version.flags.fetch_or(other.flags.load(std::memory_order_relaxed) & REPLACES_INLINE, std::memory_order_relaxed);
    superseded = &other;
  }
  const u8 flags = version.flags.load(std::memory_order_relaxed);
  const bool structural = bare || (flags & (SETS_LINKS | REPLACES_INLINE)) != 0 ||
                          version.operation == static_cast<u8>(Operation::remove);
  if (structural) table.moved.store(1, std::memory_order_release);
  const u32 flag = structural ? STRUCTURAL : head.load(std::memory_order_relaxed) & STRUCTURAL;
  const auto point = [&](std::atomic<u32>* link, u32 to) {
    link->store(link == &head ? flag | to : to, std::memory_order_release);
  };
  if (superseded != nullptr) {
    superseded->flags.fetch_or(SUPERSEDED, std::memory_order_relaxed);
    arena_.written(superseded, sizeof *superseded);
  }
  const auto key = [](const VersionRecord& v) {
    return std::tuple(v.event_time_us, v.known_time_us, v.operation, v.content);
  };
  std::atomic<u32>* place = &head;
  while (next(place) != NO_VERSION && key(*record_of(next(place))) > key(version)) place = &record_of(next(place))->next;
  version.next.store(next(place), std::memory_order_relaxed);
  point(place, unit);
  if (place != &head) {
    arena_.written(place, sizeof *place);
    point(&head, next(&head));
  }
  arena_.written(&version, sizeof version);
  if (place != &head) table.late_changes.fetch_add(1, std::memory_order_release);
  table.changes.fetch_add(1, std::memory_order_release);
  return true;
}

bool Writer::add_version(u32 table_index, TableHeader& table, u32 row, const RowChange& change) {
  char* record = table.rows.item(arena_, row);
  const u32 unit = write_version(table_index, table, change);
  thread_local std::vector<std::vector<Reader::Interval>> before;
  before.resize(table.link_count);
  const bool links_matter = table.link_count > 0 && (reader_.version(unit)->flags.load(std::memory_order_relaxed) & SETS_LINKS);
  if (links_matter)
    for (u32 l = 0; l < table.link_count; ++l) reader_.intervals(table, record, l, UINT64_MAX, before[l]);
  if (!chain_version(table, record, unit)) {
    give_back(table, unit);
    return false;
  }
  arena_.written(&Reader::version_head(table, record), sizeof(u32));
  ++versions_;
  widen(table, Shape::mixed);
  if (links_matter) open_links(table, row, record, *reader_.version(unit), before);
  return true;
}

// The version that was written last goes, and nothing of it stays: the row has it already.
void Writer::give_back(TableHeader& table, u32 unit) {
  each_code(table, *reader_.version(unit), [&](const ColumnHeader& column, u32 code) { release_code(table, column, code); });
  give_back_cells(table, unit);
  char* const at = graph_.versions.item(arena_, unit);
  std::memset(at, 0, u64{version_next_ - unit} * VERSION_UNIT_BYTES);
  arena_.written(at, u64{version_next_ - unit} * VERSION_UNIT_BYTES);
  version_bytes_ -= u64{version_next_ - unit} * VERSION_UNIT_BYTES;
  version_next_ = unit;
}

// Entries for the link intervals that are new. Those that are no more stay behind: readers check each against the row.
void Writer::open_links(const TableHeader& table, u32 row, const char* record, const VersionRecord& version,
                        const std::vector<std::vector<Reader::Interval>>& before) {
  thread_local std::vector<Reader::Interval> after;
  const bool has_inline = inline_counts(table, record);
  for (u32 l = 0; l < table.link_count; ++l) {
    reader_.intervals(table, record, l, UINT64_MAX, after);
    const LinkHeader& link = graph_.links[table.links[l]];
    for (const Reader::Interval& interval : after) {
      const auto same = [&](const Reader::Interval& other) {
        return other.open_time_us == interval.open_time_us && other.parent == interval.parent;
      };
      if (std::any_of(before[l].begin(), before[l].end(), same)) continue;
      if (has_inline && Reader::inline_parent(table, record, l) == interval.parent &&
          Reader::inline_visible_us(table, record) == interval.open_time_us)
        continue;  // the row's first entry, which is never taken away
      open_link(link, row, interval.parent, interval.open_time_us);
    }
    // A parent that the version names without ever opening the link has an entry too, of no interval: an erasure of the
    // parent finds the row by it.
    const char* named = reader_.version_cell(table, version, table.column_count + l).payload;
    if (named == nullptr || (has_inline && Reader::inline_parent(table, record, l) == load<u32>(named))) continue;
    const auto opens = [&](const Reader::Interval& interval) { return interval.parent == load<u32>(named); };
    if (std::none_of(after.begin(), after.end(), opens) && std::none_of(before[l].begin(), before[l].end(), opens))
      open_link(link, row, load<u32>(named), visible_time_us(version.event_time_us, version.known_time_us));
  }
}

void Writer::open_link(const LinkHeader& link, u32 row, u32 parent_row, i64 open_time_us) {
  const u32 unit = version_units(sizeof(LinkOpen));
  auto& opened = *reinterpret_cast<LinkOpen*>(graph_.versions.item(arena_, unit));
  opened = {row, 0, open_time_us};
  arena_.written(&opened, sizeof opened);
  const Entry entry{unit, tick_of(open_time_us) << 1 | 1u};
  const TableHeader& child = table_of(link.child);
  const char* parent_record = table_of(link.parent).rows.item(arena_, parent_row);
  const bool present = adjacency_.contains(Reader::list_word_of(parent_record, link.word_in_parent), entry,
                                           [&](Entry a, Entry b) { return entry_before(child, a, b); });
  if (!present) put_entry(link, parent_row, entry);
}

}  // namespace nowgraph
