// The read face: keys to rows, rows to the version visible at a cut-off, rows to their children in time order.
//
//   Reader reader(arena);  Snapshot s = reader.pin();  ... follow rows and lists ...  reader.unpin();
//
// One Reader a thread. Between pin and unpin everything reachable stays; nothing here locks or retries for long.
#pragma once

#include <algorithm>
#include <string_view>
#include <vector>

#include "layout.hpp"

namespace nowgraph {

// What this pin may see.
struct Snapshot {
  i64 generation;
  u64 sequence;
  u32 row_limit[MAX_TABLES];
};

enum class State : u8 {
  visible,  // a version is visible and it is no delete
  bare,     // named by a foreign key, or not yet visible: a row without cells
  hidden,   // deleted
};

struct Visible {
  State state;
  i32 version;        // visible versions - 1; -1 when bare
  i64 event_time_us;  // of the first visible version in order; ALWAYS_US when bare
  i64 known_time_us;
};

// A parent's children of one link. Entries [0, count) of the word it was read from never change.
struct List {
  const Entry* block;    // when count <= HUB_ENTRIES
  const HubBlock* hub;   // otherwise
  u32 count;
};

// A cell of a version or of the inline record; payload null for a null cell.
struct CellRef {
  const char* payload;
  bool set;  // false: this version says nothing about the column
};

class Reader {
 public:
  explicit Reader(Arena& arena) : arena_(arena), slot_(arena.take_slot()), graph_(graph_of(arena)) {}
  ~Reader() { arena_.free_slot(slot_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  static const GraphHeader* graph_of(const Arena& arena) { return arena.at<GraphHeader>(arena.header().graph_offset); }

  const Arena& arena() const { return arena_; }
  const GraphHeader& graph() const { return *graph_; }
  NOWGRAPH_INLINE const TableHeader& table(u32 index) const { return *arena_.at<TableHeader>(graph_->tables[index]); }
  NOWGRAPH_INLINE const LinkHeader& link(u32 index) const { return graph_->links[index]; }
  const ColumnHeader* columns(const TableHeader& table) const { return arena_.at<ColumnHeader>(table.columns); }

  // ---- snapshots --------------------------------------------------------------------------------------------------

  NOWGRAPH_INLINE Snapshot pin() {
    arena_.pin(slot_);
    return snapshot();
  }
  NOWGRAPH_INLINE void unpin() { arena_.unpin(slot_); }
  // As long as any holds it the first pin stays: whoever calls into Python may find another thread in here.
  Snapshot hold() { return holds_++ == 0 ? pin() : snapshot(); }
  void let_go() {
    if (--holds_ == 0) unpin();
  }

  // ---- rows -------------------------------------------------------------------------------------------------------

  NOWGRAPH_INLINE const char* row(const TableHeader& table, u32 index) const { return table.rows.item(arena_, index); }

  // 8 bytes: an i64, or the offset of the key's bytes.
  NOWGRAPH_INLINE const char* key(const TableHeader& table, u32 index) const { return table.keys.item(arena_, index); }

  NOWGRAPH_INLINE static std::atomic<u32>& version_head(const TableHeader& table, const char* record) {
    return *reinterpret_cast<std::atomic<u32>*>(const_cast<char*>(record) + table.version_offset);
  }
  // What the columns' offsets count from: the record, or its slot on disk.
  NOWGRAPH_INLINE const char* cells(const TableHeader& table, const char* record) const {
    return __builtin_expect(table.columns_on_disk, 0) ? arena_.columns_at(slot_place(table, record)) : record;
  }
  // Starts to read the cells of a row from disk, with those of its newest version, without waiting for them.
  void ask_cells(const TableHeader& table, const char* record) const;
  // As much for the rows from `row` on as a table is read at once, where it is read from end to end: slots are in the
  // order in which rows came.
  void ask_cells_from(const TableHeader& table, u32 row) const;
  NOWGRAPH_INLINE static u32 inline_parent(const TableHeader& table, const char* record, u32 index_in_child) {
    return load<u32>(record + table.parents_offset + 4 * index_in_child);
  }
  NOWGRAPH_INLINE static i64 inline_event_us(const TableHeader& table, const char* record) {
    return load<i64>(record + table.event_offset);
  }
  NOWGRAPH_INLINE static i64 inline_known_us(const TableHeader& table, const char* record) {
    return load<i64>(record + table.event_offset + 8);
  }
  NOWGRAPH_INLINE static bool inline_bare(const TableHeader& table, const char* record) {
    return inline_known_us(table, record) == BARE_US;
  }
  NOWGRAPH_INLINE static i64 inline_visible_us(const TableHeader& table, const char* record) {
    return visible_time_us(inline_event_us(table, record), inline_known_us(table, record));
  }
  NOWGRAPH_INLINE const VersionRecord* version(u32 unit) const {
    return reinterpret_cast<const VersionRecord*>(graph_->versions.item(arena_, unit));
  }

  // The row of a key, or NONE. An integer key; or the canonical bytes of a string or composite one (see keys.hpp).
  u32 find(const TableHeader& table, i64 key) const {
    const u32 row = dense_pages(table).row(key);
    if (row != NONE || table.mapped.load(std::memory_order_acquire) == 0) return row;
    return probe(map_of(table), hash_integer(key), [&](u32 index) {
      return load<i64>(this->key(table, index)) == key;
    });
  }
  u32 find(const TableHeader& table, std::string_view key) const {
    return probe(map_of(table), hash_bytes(key.data(), key.size()), [&](u32 index) {
      return string_at(load<u64>(this->key(table, index))) == key;
    });
  }
  NOWGRAPH_INLINE DensePages dense_pages(const TableHeader& table) const {
    const u64 offset = table.dense.load(std::memory_order_acquire);
    return {arena_, offset == 0 ? nullptr : arena_.at<DenseKeys>(offset)};
  }
  NOWGRAPH_INLINE std::atomic<u32>* dense_slot(const TableHeader& table, i64 key) const {
    return dense_pages(table).slot(key);
  }
  const Map* map_of(const TableHeader& table) const { return arena_.at<Map>(table.map); }

  std::string_view string_at(u64 offset) const {
    const char* data = arena_.at<char>(offset);
    return {data + 4, load<u32>(data)};
  }
  const Dictionary* dictionary(const ColumnHeader& column) const { return arena_.at<Dictionary>(column.dictionary); }
  std::string_view string_of(const Dictionary& dictionary, u32 code) const {
    return string_at(reinterpret_cast<const CodeEntry*>(dictionary.codes.item(arena_, code))->string);
  }
  u32 find_code(const Dictionary& dictionary, std::string_view text) const {
    return probe(arena_.at<Map>(dictionary.map), hash_bytes(text.data(), text.size()),
                 [&](u32 code) { return string_of(dictionary, code) == text; });
  }

  template <class Equal>
  NOWGRAPH_INLINE u32 probe(const Map* map, u64 hash, Equal equal) const {
    const MapSlots slots = slots_of(arena_, shard_of(*map, hash));
    if (slots.base == nullptr) return NONE;
    const u64 high = hash >> 32;
    for (u64 i = high & slots.mask;; i = (i + 1) & slots.mask) {
      const u64 slot = slots.base[i].load(std::memory_order_acquire);
      if (slot == 0) return NONE;
      if ((slot >> 32) != high || static_cast<u32>(slot) == SLOT_ERASED) continue;
      const u32 value = static_cast<u32>(slot) - 1;
      if (equal(value)) return value;
    }
  }

  // ---- versions ---------------------------------------------------------------------------------------------------

  // The row as a question at the cut-off sees it. The row's index must be below the snapshot's limit or have been
  // reached by a visible link. The plain case, an insert without later versions, touches only the record.
  NOWGRAPH_INLINE Visible resolve(const Snapshot& snapshot, const TableHeader& table, const char* record,
                                  i64 cutoff_time_us) const {
    const u32 head = version_head(table, record).load(std::memory_order_acquire);
    if (head == NO_VERSION) {
      const i64 event = inline_event_us(table, record);
      const i64 known = inline_known_us(table, record);
      if (known != BARE_US && is_visible(visible_time_us(event, known), cutoff_time_us))
        return {State::visible, 0, event, known};
      return {State::bare, -1, ALWAYS_US, ALWAYS_US};
    }
    return resolve_versions(snapshot, table, record, head, cutoff_time_us);
  }

  // Payload of a column's cell at the cut-off, or nullptr for null. `index` counts columns; table.column_count + i is
  // the i-th link's foreign key as a u32 row. Who asks for several cells of a row reads its `head` once, or an erasure in
  // between leaves half of a row.
  const char* cell(const Snapshot& snapshot, const TableHeader& table, const char* record, u32 head, u32 index,
                   i64 cutoff_time_us) const;
  const char* cell(const Snapshot& snapshot, const TableHeader& table, const char* record, u32 index,
                   i64 cutoff_time_us) const {
    return cell(snapshot, table, record, version_head(table, record).load(std::memory_order_acquire), index, cutoff_time_us);
  }

  // The row's first version in order, whatever the cut-off: how a row arrived. Fills payload pointers like cell().
  const char* first_cell(const Snapshot& snapshot, const TableHeader& table, const char* record, u32 head, u32 index) const;

  // The parent's row at the cut-off, NONE when null or nothing is visible.
  NOWGRAPH_INLINE u32 parent(const Snapshot& snapshot, const TableHeader& table, const char* record, u32 index_in_child,
                             i64 cutoff_time_us) const {
    const u32 head = version_head(table, record).load(std::memory_order_acquire);
    if ((head & STRUCTURAL) == 0)  // a patch may be visible before the insert that names the parent
      return is_visible(inline_visible_us(table, record), cutoff_time_us) ? inline_parent(table, record, index_in_child)
                                                                          : NONE;
    const char* payload = cell(snapshot, table, record, head, table.column_count + index_in_child, cutoff_time_us);
    return payload == nullptr ? NONE : load<u32>(payload);
  }

  // ---- lists ------------------------------------------------------------------------------------------------------

  NOWGRAPH_INLINE static u64 list_word_of(const char* parent_record, u32 word_in_parent) {
    return reinterpret_cast<const std::atomic<u64>*>(parent_record)[word_in_parent].load(std::memory_order_acquire);
  }
  NOWGRAPH_INLINE List list(u64 word) const {
    const u32 count = list_count(word);
    const u64 offset = list_offset(word);
    if (count <= HUB_ENTRIES) return {arena_.at<Entry>(offset), nullptr, count};
    return {nullptr, arena_.at<HubBlock>(offset), count};
  }
  NOWGRAPH_INLINE const Entry& at(const List& list, u32 i) const {
    if (list.block != nullptr) return list.block[i];
    return arena_.at<Entry>(list.hub[i / HUB_ENTRIES].offset)[i % HUB_ENTRIES];
  }
  // The child's row of an entry.
  NOWGRAPH_INLINE u32 child(const Entry& entry) const {
    return entry.is_open() ? link_open(entry.target).row : entry.target;
  }
  NOWGRAPH_INLINE const LinkOpen& link_open(u32 unit) const {
    return *reinterpret_cast<const LinkOpen*>(graph_->versions.item(arena_, unit));
  }
  // When the entry's link opened, exactly.
  NOWGRAPH_INLINE i64 open_time_us(const TableHeader& child_table, const Entry& entry) const {
    if (entry.is_open()) return link_open(entry.target).open_time_us;
    return inline_visible_us(child_table, row(child_table, entry.target));
  }

  // How many of the first entries opened at or before the cut-off, exactly. Newest first is the common question, so
  // the end is looked at before the search.
  u32 visible_prefix(const List& list, const TableHeader& child_table, i64 cutoff_time_us) const {
    if (list.count == 0) return 0;
    const u32 tick = tick_of(cutoff_time_us);
    if (at(list, list.count - 1).tick() < tick) return list.count;
    u32 low = 0, high = list.count;  // invariant: [0, low) visible, [high, count) not
    if (list.hub != nullptr) {
      const u32 blocks = (list.count + HUB_ENTRIES - 1) / HUB_ENTRIES;
      const auto before = [](const HubBlock& block, u32 at) { return block.first_tick < at; };
      const auto after = [](u32 at, const HubBlock& block) { return at < block.first_tick; };
      const HubBlock* first = std::lower_bound(list.hub, list.hub + blocks, tick, before);
      const HubBlock* last = std::upper_bound(first, list.hub + blocks, tick, after);
      if (first != list.hub) low = static_cast<u32>(first - list.hub - 1) * HUB_ENTRIES;
      high = std::min(list.count, static_cast<u32>(last - list.hub) * HUB_ENTRIES);
    }
    const bool near_end = high == list.count;
    for (u32 step = 1; near_end && low < high;) {  // history is asked for near its end more often: gallop back
      const u32 probe_at = high - low > step ? high - step : low;
      if (opened(at(list, probe_at), child_table, tick, cutoff_time_us)) {
        low = probe_at + 1;
        break;
      }
      high = probe_at;
      step *= 2;
    }
    while (low < high) {
      const u32 middle = low + (high - low) / 2;
      if (opened(at(list, middle), child_table, tick, cutoff_time_us)) low = middle + 1; else high = middle;
    }
    return low;
  }

  // Whether an entry of the visible prefix shows its child at the cut-off: published, not hidden, and still linked to
  // this parent by the interval that the entry stands for. `record` is the child's.
  NOWGRAPH_INLINE bool linked(const Snapshot& snapshot, u32 child_table_index, const TableHeader& child_table,
                              const Entry& entry, u32 child_row, const char* record, u32 index_in_child,
                              u32 parent_row, i64 cutoff_time_us) const {
    if (child_row >= snapshot.row_limit[child_table_index]) return false;
    const u32 head = version_head(child_table, record).load(std::memory_order_acquire);
    if ((head & STRUCTURAL) == 0) return true;
    return linked_versions(snapshot, child_table, entry, record, head, index_in_child, parent_row, cutoff_time_us);
  }

  // The link intervals of a row, all of time: (open time, parent), ascending. Only versions up to `sequence` count.
  struct Interval {
    i64 open_time_us;
    u32 parent;
  };
  void intervals(const TableHeader& table, const char* record, u32 index_in_child, u64 sequence,
                 std::vector<Interval>& out) const;

  // Versions of a row in order, oldest first, duplicates by (event time, operation, content) folded into the earliest
  // known. unit NO_VERSION stands for the inline insert.
  struct VersionKey {
    i64 event_time_us;
    i64 known_time_us;
    Operation operation;
    u64 content;
    u32 unit;
  };
  void versions(const TableHeader& table, const char* record, u32 head, u64 sequence, std::vector<VersionKey>& out) const;
  void versions(const TableHeader& table, const char* record, u64 sequence, std::vector<VersionKey>& out) const {
    versions(table, record, version_head(table, record).load(std::memory_order_acquire), sequence, out);
  }

  // Hash of the inline insert's cells, as a VersionRecord's content.
  u64 inline_content(const TableHeader& table, const char* record) const;

  // Calls visit(index, payload or nullptr) for each cell that a version record sets.
  template <class Visit>
  void each_cell(const TableHeader& table, const VersionRecord& version, Visit visit) const {
    for (const bool of_links : {false, true}) {
      VersionCells cells = version_cells(table, version, of_links);
      for (; cells.count > 0; next_cell(table, cells)) visit(cells.index(), cells.payload());
    }
  }
  // One cell of a version record.
  CellRef version_cell(const TableHeader& table, const VersionRecord& version, u32 index) const;
  // Where the inline record holds a cell, or nullptr when it is null there.
  const char* inline_cell(const TableHeader& table, const char* record, u32 index) const;
  static const DiskCells& disk_cells(const VersionRecord& version) {
    return *reinterpret_cast<const DiskCells*>(&version + 1);
  }
  u32 payload_bytes(const TableHeader& table, u32 index) const {
    if (index >= table.column_count) return 4;
    const ColumnHeader& column = columns(table)[index];
    switch (column.kind) {
      case Kind::numerical:
      case Kind::timestamp: return 8;
      case Kind::embedding: return 4 * column.dim;
      case Kind::coded: return 4;
      case Kind::boolean: return 1;
    }
    return 0;
  }

 private:
  NOWGRAPH_INLINE Snapshot snapshot() const {
    Snapshot snapshot;
    snapshot.generation = arena_.header().generation;
    for (;;) {
      const u64 turn = graph_->turn.load(std::memory_order_acquire);
      const PublishedState& state = graph_->published[turn & 1];
      snapshot.sequence = published(state.sequence);
      for (u32 i = 0; i < graph_->table_count; ++i) snapshot.row_limit[i] = published(state.row_limit[i]);
      // The other state is written next: this one only after another turn, which the second look would show.
      if (graph_->turn.load(std::memory_order_seq_cst) == turn) return snapshot;
    }
  }
  template <class T>
  NOWGRAPH_INLINE static T published(const T& value) {
    return reinterpret_cast<const std::atomic<T>*>(&value)->load(std::memory_order_acquire);
  }
  NOWGRAPH_INLINE bool opened(const Entry& entry, const TableHeader& child_table, u32 tick, i64 cutoff_time_us) const {
    if (entry.tick() != tick) return entry.tick() < tick;
    return is_visible(open_time_us(child_table, entry), cutoff_time_us);
  }
  // Cells of a version that lie behind one another, from `at` on.
  struct VersionCells {
    const char* at;
    u32 count;
    u16 index() const { return load<u16>(at); }
    const char* payload() const { return load<u16>(at + 2) != 0 ? nullptr : at + 4; }
  };
  // All of them first and then none; of a table with its columns on disk the columns', then the links'.
  VersionCells version_cells(const TableHeader& table, const VersionRecord& version, bool of_links) const {
    const auto* first = reinterpret_cast<const char*>(&version + 1);
    if (!table.columns_on_disk) return {first, of_links ? 0u : version.cell_count};
    const DiskCells& disk = disk_cells(version);
    if (!of_links) return {arena_.columns_at(disk.offset), disk.count};
    return {first + sizeof(DiskCells), version.cell_count - disk.count};
  }
  void next_cell(const TableHeader& table, VersionCells& cells) const {
    cells.at += 4 + (cells.payload() == nullptr ? 0 : (payload_bytes(table, cells.index()) + 3) / 4 * 4);
    --cells.count;
  }
  NOWGRAPH_INLINE u64 slot_place(const TableHeader& table, const char* record) const {
    return table.slots.place(arena_, load<u32>(record + table.cells_offset));
  }
  Visible resolve_versions(const Snapshot& snapshot, const TableHeader& table, const char* record, u32 head,
                           i64 cutoff_time_us) const;
  bool linked_versions(const Snapshot& snapshot, const TableHeader& child_table, const Entry& entry,
                       const char* record, u32 head, u32 index_in_child, u32 parent_row, i64 cutoff_time_us) const;

  Arena& arena_;
  u32 slot_;
  u32 holds_ = 0;
  const GraphHeader* graph_;
};

}  // namespace nowgraph
