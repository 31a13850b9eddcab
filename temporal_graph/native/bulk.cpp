// The bulk path: whole columns of inserts into one table with integer keys. Rows go through it in blocks, each block
// through five stages; a stage asks for the memory that the next one reads, and between the two lie other blocks' stages:
//
//   slots of keys ─► parents' records ─► ends of their lists ─► hubs' last blocks ─► write
#include "writer.hpp"

namespace nowgraph {

namespace {

constexpr u64 BLOCK_ROWS = 16;
constexpr u64 RING = 4;              // blocks between the first stage and the last
constexpr u64 HEADROOM_ROWS = 4096;  // how often room is made sure of
constexpr u64 RECLAIM_ROWS = 8192;
constexpr u64 ROW_BYTES_MAX = 512;  // a row, its map slots and its list blocks at their worst, growth included

KeyValue integer_key(i64 number) {
  KeyValue key;
  key.present = key.integer = true;
  key.number = number;
  return key;
}

}  // namespace

struct Writer::Bulk {
  // One link's parents: those of each block in the ring, NONE where they are not there yet.
  struct Parents {
    const LinkHeader* link;
    const TableHeader* table;
    const i64* keys;
    u32 rows[RING][BLOCK_ROWS];
    char* records[RING][BLOCK_ROWS];
  };

  Writer& writer;
  u32 table_index;
  TableHeader& table;
  const i64* keys;
  const i64* event_time_us;
  const i64* known_time_us;
  u64 count;
  std::vector<Parents> parents;

  u64 first(u64 block) const { return std::min(block * BLOCK_ROWS, count); }

  // The stages that only ask must be inlined by force: GCC 12 takes them for pure and drops the calls.

  NOWGRAPH_INLINE void ask_slots(u64 block) const {
    const u64 start = first(block), end = first(block + 1);
    for (u64 i = start; i < end; ++i) writer.prefetch_key(table, keys[i]);
    for (const Parents& each : parents)
      for (u64 i = start; i < end; ++i) writer.prefetch_key(*each.table, each.keys[i]);
  }

  NOWGRAPH_INLINE void ask_records(u64 block) {
    const u64 start = first(block), size = first(block + 1) - start;
    for (Parents& each : parents) {
      const TableHeader& from = *each.table;
      for (u64 i = 0; i < size; ++i) {
        const u32 row = writer.reader_.find(from, each.keys[start + i]);
        each.rows[block % RING][i] = row;
        if (row == NONE) continue;
        char* record = from.rows.item(writer.arena_, row);
        each.records[block % RING][i] = record;
        prefetch_write(record);
      }
    }
  }

  template <class Ask>
  NOWGRAPH_INLINE void each_list(u64 block, Ask ask) const {
    const u64 size = first(block + 1) - first(block);
    for (const Parents& each : parents)
      for (u64 i = 0; i < size; ++i)
        if (each.rows[block % RING][i] != NONE)
          ask(Reader::list_word_of(each.records[block % RING][i], each.link->word_in_parent));
  }
  NOWGRAPH_INLINE void ask_lists(u64 block) const {
    each_list(block, [&](u64 word) __attribute__((always_inline)) { writer.adjacency_.prefetch_end(word); });
  }
  NOWGRAPH_INLINE void ask_hubs(u64 block) const {
    each_list(block, [&](u64 word) __attribute__((always_inline)) { writer.adjacency_.prefetch_hub_end(word); });
  }

  void write(u64 block, Applied& result) {
    const u64 start = first(block), size = first(block + 1) - start;
    const u32 links = table.link_count;
    i64 latest = table.latest_event_us.load(std::memory_order_relaxed);
    for (u64 i = 0; i < size; ++i) {
      const i64 event = event_time_us[start + i], known = known_time_us == nullptr ? event : known_time_us[start + i];
      const i64 visible = visible_time_us(event, known);
      char* record = new_row(keys[start + i]);
      if (record == nullptr) {
        ++result.duplicate;
        continue;
      }
      const u32 row = table.row_count.load(std::memory_order_relaxed) - 1;
      ++writer.sequence_;
      store<i64>(record + table.event_offset, event);
      store<i64>(record + table.event_offset + 8, known);
      widen(table, visible == ALWAYS_US ? Shape::timeless : Shape::mixed);
      for (u32 l = 0; l < links; ++l) {
        Parents& each = parents[l];
        if (each.rows[block % RING][i] == NONE) make_parent(each, block, i);
        store<u32>(record + table.parents_offset + 4 * l, each.rows[block % RING][i]);
      }
      // A row and its columns are there before any link to it.
      const Entry entry{row, tick_of(visible) << 1};
      for (Parents& each : parents)
        writer.put_entry(table, list_word_in(each.records[block % RING][i], *each.link), entry);
      latest = std::max(latest, event);
      ++result.applied;
    }
    table.latest_event_us.store(latest, std::memory_order_release);
  }

  // A row of this key, blank; nullptr when there is one.
  NOWGRAPH_INLINE char* new_row(i64 key) {
    std::atomic<u32>* slot = writer.dense_slot_for(table_index, table, key);
    if (slot != nullptr && slot->load(std::memory_order_relaxed) != 0) return nullptr;
    if (table.mapped.load(std::memory_order_relaxed) != 0 && writer.reader_.find(table, key) != NONE) return nullptr;
    char* record = writer.next_record(table, table_index);
    const u32 row = table.row_count.load(std::memory_order_relaxed);
    store<i64>(table.keys.item(writer.arena_, row), key);
    table.row_count.store(row + 1, std::memory_order_release);
    if (slot != nullptr)
      slot->store(row + 1, std::memory_order_release);
    else
      writer.enter_key(table_index, table, key, row);
    return record;
  }

  // A parent that was not there when it was looked for: made by a row in between, or now.
  void make_parent(Parents& each, u64 block, u64 i) {
    const u32 row = writer.find_or_create(each.link->parent, integer_key(each.keys[first(block) + i]));
    each.rows[block % RING][i] = row;
    each.records[block % RING][i] = each.table->rows.item(writer.arena_, row);
  }
};

// What the key's look-up will read first.
NOWGRAPH_INLINE void Writer::prefetch_key(const TableHeader& table, i64 key) const {
  if (const auto* slot = reader_.dense_slot(table, key); slot != nullptr) prefetch(slot);
  if (table.mapped.load(std::memory_order_relaxed) == 0) return;
  const u64 hash = hash_integer(key);
  const MapSlots slots = slots_of(arena_, shard_of(*reader_.map_of(table), hash));
  if (slots.base != nullptr) prefetch(slots.base + ((hash >> 32) & slots.mask));
}

void Writer::append(u32 table_index, const i64* keys, const i64* event_time_us, const i64* known_time_us,
                    const std::vector<const i64*>& parent_keys, u64 count, Applied& result) {
  TableHeader& table = table_of(table_index);
  if (!erasures_.empty()) return append_checked(table_index, keys, event_time_us, known_time_us, parent_keys, count, result);
  Bulk bulk{*this, table_index, table, keys, event_time_us, known_time_us, count, {}};
  for (u32 l = 0; l < table.link_count; ++l) {
    const LinkHeader& link = graph_.links[table.links[l]];
    bulk.parents.push_back({&link, &table_of(link.parent), parent_keys[l], {}, {}});
  }
  const u64 blocks = (count + BLOCK_ROWS - 1) / BLOCK_ROWS;
  for (u64 ahead = 0; ahead < blocks + RING; ++ahead) {  // stages of blocks that are not there do nothing
    bulk.ask_slots(ahead);
    if (ahead >= 1) bulk.ask_records(ahead - 1);
    if (ahead >= 2) bulk.ask_lists(ahead - 2);
    if (ahead >= 3) bulk.ask_hubs(ahead - 3);
    if (ahead < RING) continue;
    const u64 block = ahead - RING, start = bulk.first(block);
    if (start % HEADROOM_ROWS == 0) ensure_headroom(HEADROOM_ROWS * ROW_BYTES_MAX / 16);
    bulk.write(block, result);
    if (start % RECLAIM_ROWS == 0) reclaim(false);
  }
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
