// The slow paths of the read face: rows that have versions beside their inline insert.
#include "reader.hpp"

#include <cmath>

#include "content.hpp"

namespace nowgraph {

namespace {

struct Order {
  i64 event_time_us;
  i64 known_time_us;
  u8 operation;
  u64 content;
  auto operator<=>(const Order&) const = default;
};

// Whether a version is known earlier by another that the snapshot may see. That one has the same clock of the event and
// so stands not far behind it.
bool is_superseded(const Reader& reader, const VersionRecord& version, u64 sequence) {
  if ((version.flags.load(std::memory_order_relaxed) & SUPERSEDED) == 0) return false;
  for (u32 unit = version.next.load(std::memory_order_acquire); unit != NO_VERSION;) {
    const VersionRecord& other = *reader.version(unit);
    if (other.event_time_us != version.event_time_us) return false;
    if (other.operation == version.operation && other.content == version.content && other.sequence <= sequence) return true;
    unit = other.next.load(std::memory_order_acquire);
  }
  return false;
}

// Walks a row's versions newest first, the inline insert at its place among them, leaving out what the snapshot may
// not see. `visit(event, known, operation, unit)` returns false to stop.
template <class Visit>
void walk(const Reader& reader, const TableHeader& table, const char* record, u32 head, u64 sequence, Visit visit) {
  bool inline_pending = !Reader::inline_bare(table, record);
  const u32 first = version_unit(head);
  if (inline_pending && (head & STRUCTURAL)) {
    for (u32 unit = first; unit != NO_VERSION;) {
      const VersionRecord* version = reader.version(unit);
      if ((version->flags.load(std::memory_order_relaxed) & REPLACES_INLINE) && version->sequence <= sequence) inline_pending = false;
      unit = version->next.load(std::memory_order_acquire);
    }
  }
  const i64 event = Reader::inline_event_us(table, record);
  const i64 known = Reader::inline_known_us(table, record);
  const auto insert = static_cast<u8>(Operation::insert);
  for (u32 unit = first; unit != NO_VERSION;) {
    const VersionRecord* version = reader.version(unit);
    if (version->operation == static_cast<u8>(Operation::erase)) {
      unit = version->next.load(std::memory_order_acquire);
      continue;
    }
    if (inline_pending) {
      const bool tie = event == version->event_time_us && known == version->known_time_us;
      const u64 content = tie ? reader.inline_content(table, record) : 0;
      if (Order{event, known, insert, content} >
          Order{version->event_time_us, version->known_time_us, version->operation, tie ? version->content : 0}) {
        inline_pending = false;
        if (!visit(event, known, Operation::insert, NO_VERSION)) return;
      }
    }
    if (version->sequence <= sequence && !is_superseded(reader, *version, sequence) &&
        !visit(version->event_time_us, version->known_time_us, static_cast<Operation>(version->operation), unit))
      return;
    unit = version->next.load(std::memory_order_acquire);
  }
  if (inline_pending) visit(event, known, Operation::insert, NO_VERSION);
}

}  // namespace

Visible Reader::resolve_versions(const Snapshot& snapshot, const TableHeader& table, const char* record, u32 head,
                                 i64 cutoff_time_us) const {
  if (is_dropped(head)) return {State::bare, -1, ALWAYS_US, ALWAYS_US};
  Visible found{State::bare, -1, ALWAYS_US, ALWAYS_US};
  walk(*this, table, record, head, snapshot.sequence, [&](i64 event, i64 known, Operation operation, u32) {
    if (!is_visible(visible_time_us(event, known), cutoff_time_us)) return true;
    if (found.version < 0) found.state = operation == Operation::remove ? State::hidden : State::visible;
    ++found.version;
    found.event_time_us = event;
    found.known_time_us = known;
    return true;
  });
  return found;
}

const char* Reader::inline_cell(const TableHeader& table, const char* record, u32 index) const {
  if (index >= table.column_count) {
    const char* payload = record + table.parents_offset + 4 * (index - table.column_count);
    return load<u32>(payload) == NONE ? nullptr : payload;
  }
  const ColumnHeader& column = columns(table)[index];
  const char* payload = cells(table, record) + column.offset;
  switch (column.kind) {
    case Kind::numerical: return std::isnan(load<double>(payload)) ? nullptr : payload;
    case Kind::timestamp: return load<i64>(payload) == NULL_TIMESTAMP_US ? nullptr : payload;
    case Kind::coded: return load<u32>(payload) == CODE_NULL ? nullptr : payload;
    case Kind::boolean: return load<u8>(payload) == BOOLEAN_NULL ? nullptr : payload;
    case Kind::embedding: return std::isnan(load<float>(payload)) ? nullptr : payload;
  }
  return nullptr;
}

CellRef Reader::version_cell(const TableHeader& table, const VersionRecord& version, u32 index) const {
  VersionCells cells = version_cells(table, version, table.columns_on_disk && index >= table.column_count);
  for (; cells.count > 0; next_cell(table, cells))
    if (cells.index() == index) return {cells.payload(), true};
  return {nullptr, static_cast<Operation>(version.operation) == Operation::insert};
}

void Reader::ask_cells(const TableHeader& table, const char* record) const {
  const ColumnFile& columns = *arena_.columns();
  columns.ask(slot_place(table, record), table.slots.stride);
  const u32 head = version_head(table, record).load(std::memory_order_acquire);
  if (is_dropped(head) || version_unit(head) == NO_VERSION) return;
  const DiskCells& newest = disk_cells(*version(version_unit(head)));
  if (newest.count > 0) columns.ask(newest.offset, newest.bytes);
}

const char* Reader::cell(const Snapshot& snapshot, const TableHeader& table, const char* record, u32 head, u32 index,
                         i64 cutoff_time_us) const {
  if (is_dropped(head)) return nullptr;
  const char* found = nullptr;
  walk(*this, table, record, head, snapshot.sequence, [&](i64 event, i64 known, Operation, u32 unit) {
    if (!is_visible(visible_time_us(event, known), cutoff_time_us)) return true;
    if (unit == NO_VERSION) {
      found = inline_cell(table, record, index);
      return false;
    }
    const CellRef cell = version_cell(table, *version(unit), index);
    found = cell.payload;
    return !cell.set;
  });
  return found;
}

const char* Reader::first_cell(const Snapshot& snapshot, const TableHeader& table, const char* record, u32 head,
                               u32 index) const {
  if (is_dropped(head)) return nullptr;
  const char* found = nullptr;
  walk(*this, table, record, head, snapshot.sequence, [&](i64, i64, Operation, u32 unit) {
    found = unit == NO_VERSION ? inline_cell(table, record, index) : version_cell(table, *version(unit), index).payload;
    return true;
  });
  return found;
}

void Reader::ask_cells_from(const TableHeader& table, u32 row) const {
  if (!table.columns_on_disk || row % CHUNK_ROWS != 0) return;
  const ColumnFile& columns = *arena_.columns();
  const u64 place = slot_place(table, this->row(table, row));
  columns.ask(place, std::min(columns.bytes() - place, u64{table.slots.stride} << CHUNK_ROWS_LOG2));
}

void Reader::versions(const TableHeader& table, const char* record, u32 head, u64 sequence,
                      std::vector<VersionKey>& out) const {
  out.clear();
  if (is_dropped(head)) return;
  walk(*this, table, record, head, sequence, [&](i64 event, i64 known, Operation operation, u32 unit) {
    const u64 content = unit == NO_VERSION ? 0 : version(unit)->content;
    out.push_back({event, known, operation, content, unit});
    return true;
  });
  std::reverse(out.begin(), out.end());
}

void Reader::intervals(const TableHeader& table, const char* record, u32 index_in_child, u64 sequence,
                       std::vector<Interval>& out) const {
  out.clear();
  struct Set {
    i64 visible_us;
    u32 rank;  // in order
    u32 parent;
  };
  thread_local std::vector<VersionKey> keys;
  thread_local std::vector<Set> sets;
  versions(table, record, sequence, keys);
  sets.clear();
  const u32 index = table.column_count + index_in_child;
  for (u32 rank = 0; rank < keys.size(); ++rank) {
    const VersionKey& key = keys[rank];
    CellRef cell{nullptr, true};
    if (key.unit == NO_VERSION)
      cell.payload = inline_cell(table, record, index);
    else if (key.operation == Operation::remove)
      continue;
    else
      cell = version_cell(table, *version(key.unit), index);
    if (!cell.set) continue;
    sets.push_back({visible_time_us(key.event_time_us, key.known_time_us), rank,
                    cell.payload == nullptr ? NONE : load<u32>(cell.payload)});
  }
  std::sort(sets.begin(), sets.end(), [](const Set& a, const Set& b) {
    return a.visible_us != b.visible_us ? a.visible_us < b.visible_us : a.rank < b.rank;
  });
  u32 current = NONE;
  i64 newest_rank = -1;
  u32 newest_parent = NONE;
  for (std::size_t i = 0; i < sets.size();) {
    const i64 time = sets[i].visible_us;
    for (; i < sets.size() && sets[i].visible_us == time; ++i) {
      if (static_cast<i64>(sets[i].rank) <= newest_rank) continue;
      newest_rank = sets[i].rank;
      newest_parent = sets[i].parent;
    }
    if (newest_parent == current) continue;
    current = newest_parent;
    if (current != NONE) out.push_back({time, current});
  }
}

bool Reader::linked_versions(const Snapshot& snapshot, const TableHeader& child_table, const Entry& entry,
                             const char* record, u32 head, u32 index_in_child, u32 parent_row,
                             i64 cutoff_time_us) const {
  if (is_dropped(head)) return false;
  if (resolve_versions(snapshot, child_table, record, head, cutoff_time_us).state != State::visible) return false;
  thread_local std::vector<Interval> found;
  intervals(child_table, record, index_in_child, snapshot.sequence, found);
  const Interval* current = nullptr;
  for (const Interval& interval : found)
    if (is_visible(interval.open_time_us, cutoff_time_us)) current = &interval;
  if (current == nullptr || current->parent != parent_row) return false;
  if (current->open_time_us != open_time_us(child_table, entry)) return false;
  // A link that closed by a null leaves no interval behind: the foreign key itself decides.
  const char* payload =
      cell(snapshot, child_table, record, head, child_table.column_count + index_in_child, cutoff_time_us);
  return payload != nullptr && load<u32>(payload) == parent_row;
}

u64 Reader::inline_content(const TableHeader& table, const char* record) const {
  ContentHash hash;
  for (u32 index = 0; index < table.column_count + table.link_count; ++index)
    hash_cell(*this, table, index, inline_cell(table, record, index), hash);
  return hash.value();
}

}  // namespace nowgraph
