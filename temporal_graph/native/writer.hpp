// The write face: events become rows, versions and links, and are published a batch at a time. One writer an arena.
//
//   RowEvent bytes -> Decoder -> judge the clocks -> row (find, or create) -> inline insert | version -> links -> publish
//
// The final graph does not depend on the order of arrival: a row's versions are kept in the order of their own clocks,
// a list in the order of visible times, and whatever an event of the past changes is worked out again from all of them.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "adjacency.hpp"
#include "decode.hpp"
#include "erasures.hpp"
#include "spec.hpp"

namespace nowgraph {

struct Rejected {
  u64 index;
  std::string reason;
  std::string detail;
};

struct Applied {
  u64 applied = 0;
  u64 duplicate = 0;
  u64 erased = 0;  // changes of what is erased: they are dropped
  std::vector<Rejected> rejected;
};

// What the log says of an event beside its bytes.
struct LogPosition {
  bool known = false;
  i64 broker_time_us = ALWAYS_US;  // ALWAYS_US: none
  std::string_view topic;
  i32 partition = 0;
  i64 offset = 0;
};

struct TableMemory {
  std::string name;
  u64 rows = 0;
  u64 topology_bytes = 0;  // clocks, parents, list words
  u64 key_bytes = 0;       // key words and key strings
  u64 key_map_bytes = 0;
  u64 cell_bytes = 0;  // in the arena
  u64 disk_bytes = 0;  // slots in the columns' file
  u64 dictionary_bytes = 0;
  u64 version_head_bytes = 0;
};

struct Memory {
  u64 arena_bytes = 0;
  u64 used_bytes = 0;
  u64 idle_bytes = 0;  // retired blocks, waiting for readers or free to be used again
  u64 version_bytes = 0;
  u64 versions = 0;
  u64 columns_bytes = 0;  // of the columns' file, versions' cells among them
  AdjacencyBytes adjacency;
  std::vector<TableMemory> tables;
};

struct Evicted {
  u64 rows = 0;
  u64 entries = 0;
};

class Writer {
 public:
  // `state` is what `save` of the writer gave whose image the arena was filled with; empty for a fresh arena.
  explicit Writer(Arena& arena, std::string_view state = {});

  // Applies one event; not visible before publish().
  void apply(std::string_view bytes, u64 index, const LogPosition& at, bool backfill, Applied& result);

  // Columns of inserts without cells, one table, integer keys: the bulk path. `known_time_us` may be null (= event
  // time); parents[l][i] is the i-th row's key in link l, already known to be integers. Existing keys are duplicates.
  void append(u32 table, const i64* keys, const i64* event_time_us, const i64* known_time_us,
              const std::vector<const i64*>& parents, u64 count, Applied& result);

  void set_position(std::string_view topic, i32 partition, i64 next_offset);
  void publish();
  // Drops what retention no longer keeps, its age counted back from the newest event time, or from `as_of_us` where that
  // is older: up to which time the log was read.
  Evicted evict(i64 as_of_us = INT64_MAX);
  Memory memory() const;
  // Takes over the rows of a graph with fewer tables, columns and links, each version as it was; ImageRefused names what
  // this graph lacks or has otherwise. Columns and links that the other has not are null. `old_state` is its writer's.
  void take_over(const Reader& old, std::string_view old_state);
  // What a writer knows that does not lie in the arena; between two batches.
  std::string save() const;

  u64 sequence() const { return sequence_; }
  const Reader& reader() const { return reader_; }
  const Erasures& erasures() const { return erasures_; }
  const Catalog& catalog() const { return catalog_; }

 private:
  void resume(std::string_view state);
  TableHeader& table_of(u32 index) const { return *arena_.at<TableHeader>(graph_.tables[index]); }
  bool judge(const TableHeader& table, const LogPosition& at, bool backfill, RowChange& change, Refusal& refusal) const;
  bool position_key(const LogPosition& at, RowChange& change, Refusal& refusal);
  void ensure_headroom(u64 event_bytes) const;
  void enter(RowChange& change, Applied& result);
  void reclaim(bool check_dead);

  struct Erasing;
  bool judge_erasure(const LogPosition& at, RowChange& change, Refusal& refusal) const;
  bool erase(const RowChange& change);
  bool is_erased(RowChange& change);
  bool inline_counts(const TableHeader& table, const char* record) const;
  // Calls visit(unit) for each record of a chain, which may give it up.
  template <class Visit>
  void each_unit(u32 head, Visit visit) const {
    if (is_dropped(head)) return;
    for (u32 unit = version_unit(head); unit != NO_VERSION;) {
      const u32 next = version_unit(reader_.version(unit)->next.load(std::memory_order_relaxed));
      visit(unit);
      unit = next;
    }
  }
  u32 write_mark();
  void release_code(TableHeader& table, const ColumnHeader& column, u32 code);
  void release_version(TableHeader& table, u32 unit);
  void release_inline(u32 table_index, TableHeader& table, char* record);
  void overwrite_later(const void* at, u32 bytes, u32 table = NONE, u32 from = 0);
  void overwrite_cells_later(u64 offset, u32 bytes);
  void overwrite(u64 oldest_epoch);

  u32 find(const TableHeader& table, const KeyValue& key) const {
    return key.integer ? reader_.find(table, key.number) : reader_.find(table, key.bytes);
  }
  struct Bulk;
  void append_checked(u32 table, const i64* keys, const i64* event_time_us, const i64* known_time_us,
                      const std::vector<const i64*>& parents, u64 count, Applied& result);
  template <u64 Count>
  void prefetch_keys(const TableHeader& table, const i64* keys) const;
  u32 create_row(u32 table_index, TableHeader& table, const KeyValue& key);
  u32 find_or_create(u32 table_index, const KeyValue& key);
  static void widen(TableHeader& table, Shape shape);
  // The record of the row that comes next, blank.
  NOWGRAPH_INLINE char* next_record(TableHeader& table, u32 table_index) {
    const u32 row = table.row_count.load(std::memory_order_relaxed);
    if (__builtin_expect((row & (CHUNK_ROWS - 1)) == 0 || row + u64{1} >= SLOT_ERASED, 0)) room_for_row(table, row);
    char* record = table.rows.item(arena_, row);
    const std::vector<char>& blank = states_[table_index].blank;
    if (blank.size() == 32)  // what a row takes at least: a copy of known size needs no call
      std::memcpy(record, blank.data(), 32);
    else
      std::memcpy(record, blank.data(), blank.size());
    return record;
  }
  void room_for_row(TableHeader& table, u32 row);
  void insert_row(u32 table_index, TableHeader& table, const RowChange& change);
  void link_row(const TableHeader& table, u32 row, const char* record);
  bool apply_change(const RowChange& change);
  bool add_version(u32 table_index, TableHeader& table, u32 row, const RowChange& change);
  u32 write_version(u32 table_index, TableHeader& table, const RowChange& change);
  bool chain_version(TableHeader& table, char* record, u32 unit);
  void open_links(const TableHeader& table, u32 row, const char* record, const VersionRecord& version,
                  const std::vector<std::vector<Reader::Interval>>& before);
  void give_back(TableHeader& table, u32 unit);
  // Calls visit(column, code) for each cell of a version that holds a code.
  template <class Visit>
  void each_code(const TableHeader& table, const VersionRecord& version, Visit visit) const {
    reader_.each_cell(table, version, [&](u32 index, const char* payload) {
      if (index >= table.column_count || payload == nullptr) return;
      if (const ColumnHeader& column = reader_.columns(table)[index]; column.kind == Kind::coded)
        visit(column, load<u32>(payload));
    });
  }
  void open_link(const LinkHeader& link, u32 row, u32 parent_row, i64 open_time_us);
  void put_entry(const LinkHeader& link, u32 parent_row, Entry entry);
  NOWGRAPH_INLINE void put_entry(const TableHeader& child, std::atomic<u64>& word, Entry entry) {
    adjacency_.insert(word, entry, [&](Entry a, Entry b) { return entry_before(child, a, b); });
  }
  NOWGRAPH_INLINE static std::atomic<u64>& list_word_in(char* parent_record, const LinkHeader& link) {
    return reinterpret_cast<std::atomic<u64>*>(parent_record)[link.word_in_parent];
  }
  u32 take_slot(u32 table_index, TableHeader& table);
  char* new_cells(u32 table_index, TableHeader& table, const RowChange& change, char* record);
  void cells_written(const char* cells, u64 bytes);
  u64 take_version_cells(u32 bytes);
  void give_back_cells(const TableHeader& table, u32 unit);
  u32 store_cell(u32 table_index, TableHeader& table, const CellValue& cell, char* to);
  CodeEntry& code_entry(const Dictionary& dictionary, u32 code) const;
  u32 code_of(ColumnHeader& column, std::string_view text, u64& account);
  u64 keep_string(std::string_view text, u64& account);
  u32 version_units(u32 bytes);
  u64 trim_lists(const LinkHeader& link);
  void grow_chunks(Chunks& chunks, bool on_disk = false);
  void map_insert(u64 map_offset, u64 hash, u32 value, u64& account);
  MapSlots grow(MapShard& shard, const MapSlots& old, u64& account);
  static std::atomic<u64>* put_slot(const MapSlots& slots, u64 slot, std::memory_order order);
  NOWGRAPH_INLINE void fill_slot(std::atomic<u32>& slot, u32 value) const {
    slot.store(value, std::memory_order_release);
    arena_.written(&slot);
  }
  void map_erase(u64 map_offset, u64 hash, u32 value);
  std::atomic<u32>* dense_slot_for(u32 table_index, TableHeader& table, i64 key);
  bool add_dense_page(u32 table_index, TableHeader& table, u64 page);
  void enter_key(u32 table_index, TableHeader& table, i64 key, u32 row);
  void forget_key(TableHeader& table, u32 row);
  int compare_keys(const TableHeader& table, u32 a, u32 b) const;
  bool same_tick_before(const TableHeader& child, Entry a, Entry b) const;
  NOWGRAPH_INLINE bool entry_before(const TableHeader& child, Entry a, Entry b) const {
    return a.tick() != b.tick() ? a.tick() < b.tick() : same_tick_before(child, a, b);
  }

  struct TableState {
    std::vector<char> blank;  // a record of nulls
    std::vector<char> blank_slot;  // where columns lie on disk
    u64 key_string_bytes = 0;
    u64 key_map_bytes = 0;
    u64 dense_bytes = 0;  // pages of dense keys
    u64 dictionary_bytes = 0;
  };

  // Bytes that are erased once no reader can reach them: zeros, or those of the table's blank record.
  struct Overwrite {
    u64 offset;
    u64 epoch;
    u32 bytes;
    u32 table;    // NONE: zeros
    u32 from;     // in the blank record
    u32 on_disk;  // 1: in the columns' file
  };

  Arena& arena_;
  GraphHeader& graph_;
  Reader reader_;  // never pinned: the writer retires nothing under itself
  Catalog catalog_;
  Decoder decoder_;
  Blocks blocks_;
  Adjacency adjacency_;
  std::vector<TableState> states_;
  std::map<std::pair<std::string, i32>, u32> partitions_;
  std::vector<i64> offsets_;
  Erasures erasures_;
  std::vector<Overwrite> overwrites_;  // by epoch
  RowChange change_;
  std::string position_key_;
  u64 sequence_ = 0;
  u64 string_next_ = 0;
  u64 string_end_ = 0;
  u32 version_next_ = 0;  // unit
  u32 version_end_ = 0;
  u64 version_bytes_ = 0;
  u64 version_cells_next_ = 0;  // in the columns' file
  u64 version_cells_end_ = 0;
  u64 versions_ = 0;
  u64 headroom_ = 0;
  u64 columns_headroom_ = 0;
  u64 publishes_ = 0;
};

}  // namespace nowgraph
