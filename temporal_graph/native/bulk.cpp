// The bulk path: whole columns of inserts into one table with integer keys. Rows go through it a few at a time, through
// five stages; a stage asks for the memory that the next one reads, and between the two lie other rows' stages:
//
//   slots of keys ─► parents' records ─► ends of their lists ─► hubs' last blocks ─► write
#include "writer.hpp"

namespace nowgraph {

namespace {

// Rows that go through a stage at once: so few that memory is asked for all the time, rather than much of it and then none.
constexpr u64 STEP = 4;
constexpr u64 APART = 16;            // rows between two stages, in which the memory has time to answer
constexpr u64 RING = 128;            // rows that are remembered: more than lie between the first stage and the last
constexpr u64 COLUMN_AHEAD = 128;    // keys that are asked for before they are read
constexpr u64 HEADROOM_ROWS = 4096;  // how often room is made sure of
constexpr u64 RECLAIM_ROWS = 2048;   // so often that replaced blocks are used again while a cache holds them
constexpr u64 ROW_BYTES_MAX = 512;   // a row, its map slots and its list blocks at their worst, growth included

KeyValue integer_key(i64 number) {
  KeyValue key;
  key.present = key.integer = true;
  key.number = number;
  return key;
}

}  // namespace

struct Writer::Bulk {
  // One link's parents: those of each row in the ring, NONE where they are not there yet.
  struct Parents {
    u32 link_parent;     // the table's index
    u32 word_in_parent;
    TableHeader* table;
    const i64* keys;
    u32 rows[RING];
    char* records[RING];

    std::atomic<u64>& word(u64 row) const {
      return reinterpret_cast<std::atomic<u64>*>(records[row % RING])[word_in_parent];
    }
  };

  Writer& writer;
  u32 table_index;
  TableHeader& table;
  const i64* keys;
  const i64* event_time_us;
  const i64* known_time_us;
  std::vector<Parents> parents;
  u32 first_row;                                // of those that it makes
  const std::atomic<u32>* last_slot = nullptr;  // that it filled

  // Says what was written from one end to the other: the rows and their keys, and the page of slots that it was in.
  ~Bulk() {
    const u32 end = table.row_count.load(std::memory_order_relaxed);
    for (u32 row = first_row; row < end;) {
      const u32 rows = std::min(end - row, CHUNK_ROWS - row % CHUNK_ROWS);
      writer.arena_.written(table.rows.item(writer.arena_, row), u64{rows} * table.stride);
      writer.arena_.written(table.keys.item(writer.arena_, row), u64{rows} * sizeof(i64));
      row += rows;
    }
    if (last_slot != nullptr) writer.arena_.written(last_slot);
  }

  // The rows [start, end), Step at a time. The stages that only ask must be inlined by force: GCC 12 takes them for pure
  // and drops the calls.
  template <u64 Step>
  void run(u64 start, u64 end, Applied& result) {
    for (u64 at = start; at < end + 4 * APART; at += Step) {
      const auto at_stage = [=](u64 stage) { return at >= start + stage * APART && at < end + stage * APART; };
      if (at_stage(0)) ask_slots<Step>(at);
      if (at_stage(1)) ask_records<Step>(at - APART);
      if (at_stage(2)) ask_lists<Step>(at - 2 * APART);
      if (at_stage(3)) ask_hubs<Step>(at - 3 * APART);
      if (!at_stage(4)) continue;
      const u64 row = at - 4 * APART;
      if (row % HEADROOM_ROWS == 0) writer.ensure_headroom(HEADROOM_ROWS * ROW_BYTES_MAX / 16);
      write<Step>(row, result);
      if (row % RECLAIM_ROWS == 0) writer.reclaim(false);
    }
  }

 private:
  template <u64 Step>
  NOWGRAPH_INLINE void ask_slots(u64 start) const {
    ask_keys<Step>(table, keys + start);
    for (const Parents& each : parents) ask_keys<Step>(*each.table, each.keys + start);
  }
  // A column is read from end to end, but what the core fetches ahead of it ends with each page.
  template <u64 Step>
  NOWGRAPH_INLINE void ask_keys(const TableHeader& of, const i64* column) const {
    prefetch(column + COLUMN_AHEAD);
    writer.prefetch_keys<Step>(of, column);
  }

  template <u64 Step>
  NOWGRAPH_INLINE void ask_records(u64 start) {
    const Reader& reader = writer.reader_;
    for (Parents& each : parents) {
      const TableHeader& from = *each.table;
      const DensePages pages = reader.dense_pages(from);
      const bool mapped = from.mapped.load(std::memory_order_relaxed) != 0;
      for (u64 i = start; i < start + Step; ++i) {
        u32 row = pages.row(each.keys[i]);
        if (row == NONE && mapped) row = reader.find(from, each.keys[i]);
        each.rows[i % RING] = row;
        if (row == NONE) continue;
        char* record = from.rows.item(writer.arena_, row);
        each.records[i % RING] = record;
        prefetch_write(record);
      }
    }
  }

  template <u64 Step, class Ask>
  NOWGRAPH_INLINE void each_list(u64 start, Ask ask) const {
    for (const Parents& each : parents)
      for (u64 i = start; i < start + Step; ++i)
        if (each.rows[i % RING] != NONE) ask(each.word(i).load(std::memory_order_relaxed));
  }
  template <u64 Step>
  NOWGRAPH_INLINE void ask_lists(u64 start) const {
    each_list<Step>(start, [&](u64 word) __attribute__((always_inline)) { writer.adjacency_.prefetch_end(word); });
  }
  template <u64 Step>
  NOWGRAPH_INLINE void ask_hubs(u64 start) const {
    each_list<Step>(start, [&](u64 word) __attribute__((always_inline)) { writer.adjacency_.prefetch_hub_end(word); });
  }

  // What is read again for each row is held in variables of its own: a store to a record might, for all that the compiler
  // knows, be one to any of it.
  template <u64 Step>
  NOWGRAPH_INLINE void write(u64 start, Applied& result) {
    Parents* const first = parents.data();
    const u32 links = static_cast<u32>(parents.size());
    TableHeader& table = this->table;
    const u32 event_offset = table.event_offset, parents_offset = table.parents_offset;
    const i64 *const keys = this->keys, *const events = event_time_us, *const knowns = known_time_us;
    i64 latest = table.latest_event_us.load(std::memory_order_relaxed);
    u64 applied = 0;
    for (u64 i = start; i < start + Step; ++i) {
      char* const record = new_row(table, keys[i]);
      if (record == nullptr) continue;
      const i64 event = events[i], known = knowns == nullptr ? event : knowns[i], visible = visible_time_us(event, known);
      const u32 row = table.row_count.load(std::memory_order_relaxed) - 1;
      ++writer.sequence_;
      store<i64>(record + event_offset, event);
      store<i64>(record + event_offset + 8, known);
      if (table.shape.load(std::memory_order_relaxed) != Shape::mixed)
        widen(table, visible == ALWAYS_US ? Shape::timeless : Shape::mixed);
      for (u32 l = 0; l < links; ++l) {
        if (first[l].rows[i % RING] == NONE) make_parent(first[l], i);
        store<u32>(record + parents_offset + 4 * l, first[l].rows[i % RING]);
      }
      // A row and its columns are there before any link to it.
      const Entry entry = entry_of(row, tick_of(visible) << 1);
      for (u32 l = 0; l < links; ++l) writer.put_entry(table, first[l].word(i), entry);
      latest = std::max(latest, event);
      ++applied;
    }
    result.applied += applied;
    result.duplicate += Step - applied;
    table.latest_event_us.store(latest, std::memory_order_release);
  }

  // A row of this key, blank; nullptr when there is one.
  NOWGRAPH_INLINE char* new_row(TableHeader& table, i64 key) {
    std::atomic<u32>* slot = writer.reader_.dense_slot(table, key);
    if (__builtin_expect(slot == nullptr, 0)) slot = writer.dense_slot_for(table_index, table, key);
    if (slot != nullptr && slot->load(std::memory_order_relaxed) != 0) return nullptr;
    if (table.mapped.load(std::memory_order_relaxed) != 0 && writer.reader_.find(table, key) != NONE) return nullptr;
    char* record = writer.next_record(table, table_index);
    const u32 row = table.row_count.load(std::memory_order_relaxed);
    store<i64>(table.keys.item(writer.arena_, row), key);
    table.row_count.store(row + 1, std::memory_order_release);
    if (slot != nullptr)
      fill_slot(slot, row + 1);
    else
      writer.enter_key(table_index, table, key, row);
    return record;
  }

  // Counters come one after another: a page of slots is said to be written when the next slot lies in another.
  NOWGRAPH_INLINE void fill_slot(std::atomic<u32>* slot, u32 value) {
    slot->store(value, std::memory_order_release);
    if (last_slot != nullptr && !PageMarks::same_page(slot, last_slot)) writer.arena_.written(last_slot);
    last_slot = slot;
  }

  // A parent that was not there when it was looked for: made by a row in between, or now.
  void make_parent(Parents& each, u64 i) {
    const u32 row = writer.find_or_create(each.link_parent, integer_key(each.keys[i]));
    each.rows[i % RING] = row;
    each.records[i % RING] = each.table->rows.item(writer.arena_, row);
  }
};

// What look-ups of the keys will read first.
template <u64 Count>
NOWGRAPH_INLINE void Writer::prefetch_keys(const TableHeader& table, const i64* keys) const {
  const DensePages pages = reader_.dense_pages(table);
  for (u64 i = 0; i < Count; ++i)
    if (const auto* slot = pages.slot(keys[i]); slot != nullptr) prefetch(slot);
  if (__builtin_expect(table.mapped.load(std::memory_order_relaxed) == 0, 1)) return;
  for (u64 i = 0; i < Count; ++i) {
    const u64 hash = hash_integer(keys[i]);
    const MapSlots slots = slots_of(arena_, shard_of(*reader_.map_of(table), hash));
    if (slots.base != nullptr) prefetch(slots.base + ((hash >> 32) & slots.mask));
  }
}

void Writer::append(u32 table_index, const i64* keys, const i64* event_time_us, const i64* known_time_us,
                    const std::vector<const i64*>& parent_keys, u64 count, Applied& result) {
  TableHeader& table = table_of(table_index);
  if (!erasures_.empty()) return append_checked(table_index, keys, event_time_us, known_time_us, parent_keys, count, result);
  Bulk bulk{*this, table_index, table, keys, event_time_us, known_time_us, {}, table.row_count.load(std::memory_order_relaxed)};
  for (u32 l = 0; l < table.link_count; ++l) {
    const LinkHeader& link = graph_.links[table.links[l]];
    bulk.parents.push_back({link.parent, link.word_in_parent, &table_of(link.parent), parent_keys[l], {}, {}});
  }
  const u64 whole = count - count % STEP;
  bulk.run<STEP>(0, whole, result);
  bulk.run<1>(whole, count, result);
}

// Row by row, each as the change that it is: what is erased may be among them.
void Writer::append_checked(u32 table_index, const i64* keys, const i64* event_time_us, const i64* known_time_us,
                            const std::vector<const i64*>& parent_keys, u64 count, Applied& result) {
  TableHeader& table = table_of(table_index);
  for (u64 i = 0; i < count; ++i) {
    ensure_headroom(ROW_BYTES_MAX);
    change_.table = table_index;
    change_.operation = Operation::insert;
    change_.key = integer_key(keys[i]);
    change_.event_time_us = event_time_us[i];
    change_.known_time_us = known_time_us == nullptr ? event_time_us[i] : known_time_us[i];
    change_.cells.resize(parent_keys.size());
    for (u32 l = 0; l < parent_keys.size(); ++l) {
      change_.cells[l] = {};
      change_.cells[l].index = table.column_count + l;
      change_.cells[l].key = integer_key(parent_keys[l][i]);
    }
    // An existing key is a duplicate here, whatever its row holds.
    if (find(table, change_.key) != NONE)
      ++result.duplicate;
    else
      enter(change_, result);
  }
}

}  // namespace nowgraph
