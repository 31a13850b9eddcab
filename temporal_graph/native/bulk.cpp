// The bulk path: whole columns of inserts into one table with integer keys. Rows go through it in blocks, one stage at a
// time, each stage asking for the memory that the next one reads:
//
//   hashes ─► map slots ─► parents' keys and records ─► ends of their lists ─► write
#include "writer.hpp"

namespace nowgraph {

namespace {

constexpr u32 BLOCK_ROWS = 64;
constexpr u64 HEADROOM_ROWS = 4096;  // how often room is made sure of
constexpr u64 ROW_BYTES_MAX = 512;   // a row, its map slots and its list blocks at their worst, growth included

}  // namespace

// The parents of one link for a block of rows: found ahead of the writing, NONE where they are not there yet.
struct Writer::ParentsAhead {
  const LinkHeader* link;
  const TableHeader* table;
  const Map* map;
  const i64* keys;
  u64 hash[BLOCK_ROWS];
  u32 row[BLOCK_ROWS];
};

void Writer::look_ahead(ParentsAhead& parents, u64 start, u32 count) const {
  const TableHeader& table = *parents.table;
  for (u32 i = 0; i < count; ++i) {  // the row whose hash agrees is the key's own but once in billions
    const MapSlots slots = slots_of(arena_, shard_of(*parents.map, parents.hash[i]));
    parents.row[i] = NONE;
    if (slots.base == nullptr) continue;
    const u64 high = parents.hash[i] >> 32;
    for (u64 at = high & slots.mask;; at = (at + 1) & slots.mask) {
      const u64 slot = slots.base[at].load(std::memory_order_relaxed);
      if (slot == 0) break;
      if ((slot >> 32) != high || static_cast<u32>(slot) == SLOT_ERASED) continue;
      parents.row[i] = static_cast<u32>(slot) - 1;
      prefetch(table.keys.item(arena_, parents.row[i]));
      prefetch_write(table.rows.item(arena_, parents.row[i]));
      break;
    }
  }
  for (u32 i = 0; i < count; ++i) {
    if (parents.row[i] == NONE) continue;
    if (load<i64>(reader_.key(table, parents.row[i])) != parents.keys[start + i])
      parents.row[i] = reader_.find(table, parents.keys[start + i]);
    if (parents.row[i] == NONE) continue;
    const char* record = table.rows.item(arena_, parents.row[i]);
    prefetch_write(adjacency_.tail_address(Reader::list_word_of(record, parents.link->word_in_parent)));
  }
}

void Writer::append(u32 table_index, const i64* keys, const i64* event_time_us, const i64* known_time_us,
                    const std::vector<const i64*>& parent_keys, u64 count, Applied& result) {
  TableHeader& table = table_of(table_index);
  const Map* map = reader_.map_of(table);
  std::vector<ParentsAhead> ahead(table.link_count);
  for (u32 l = 0; l < table.link_count; ++l) {
    const LinkHeader& link = graph_.links[table.links[l]];
    ahead[l].link = &link;
    ahead[l].table = &table_of(link.parent);
    ahead[l].map = reader_.map_of(*ahead[l].table);
    ahead[l].keys = parent_keys[l];
  }
  u64 hash[BLOCK_ROWS];
  i64 latest = table.latest_event_us.load(std::memory_order_relaxed);
  for (u64 start = 0; start < count; start += BLOCK_ROWS) {
    if (start % HEADROOM_ROWS == 0) ensure_headroom(HEADROOM_ROWS * ROW_BYTES_MAX / 16);
    const u32 size = static_cast<u32>(std::min<u64>(BLOCK_ROWS, count - start));
    for (u32 i = 0; i < size; ++i) {
      hash[i] = hash_integer(keys[start + i]);
      const MapSlots slots = slots_of(arena_, shard_of(*map, hash[i]));
      if (slots.base != nullptr) prefetch_write(slots.base + ((hash[i] >> 32) & slots.mask));
    }
    for (ParentsAhead& parents : ahead)
      for (u32 i = 0; i < size; ++i) {
        parents.hash[i] = hash_integer(parents.keys[start + i]);
        const MapSlots slots = slots_of(arena_, shard_of(*parents.map, parents.hash[i]));
        if (slots.base != nullptr) prefetch(slots.base + ((parents.hash[i] >> 32) & slots.mask));
      }
    for (ParentsAhead& parents : ahead) look_ahead(parents, start, size);
    for (u32 i = 0; i < size; ++i) {
      const u64 at = start + i;
      const u32 row = new_row(table_index, table, keys[at], hash[i]);
      if (row == NONE) {
        ++result.duplicate;
        continue;
      }
      ++sequence_;
      char* record = table.rows.item(arena_, row);
      const i64 known = known_time_us == nullptr ? event_time_us[at] : known_time_us[at];
      store<i64>(record + table.event_offset, event_time_us[at]);
      store<i64>(record + table.event_offset + 8, known);
      widen(table, visible_time_us(event_time_us[at], known) == ALWAYS_US ? Shape::timeless : Shape::mixed);
      for (u32 l = 0; l < table.link_count; ++l) {
        u32 parent = ahead[l].row[i];
        if (parent == NONE) {
          KeyValue key;
          key.present = key.integer = true;
          key.number = ahead[l].keys[at];
          parent = find_or_create(graph_.links[table.links[l]].parent, key);
          record = table.rows.item(arena_, row);
        }
        store<u32>(record + table.parents_offset + 4 * l, parent);
      }
      link_row(table, row, record);
      latest = std::max(latest, event_time_us[at]);
      ++result.applied;
    }
    if (start % 8192 == 0) blocks_.reclaim(false);
  }
  table.latest_event_us.store(latest, std::memory_order_release);
}

// A row of this key, blank; NONE when there is one. One walk through the map both looks and enters.
u32 Writer::new_row(u32 table_index, TableHeader& table, i64 key, u64 hash) {
  MapShard& shard = shard_of(*arena_.at<Map>(table.map), hash);
  const MapSlots slots = slots_of(arena_, shard);
  const u64 high = hash >> 32;
  u64 at = high & slots.mask;
  if (slots.base != nullptr)
    for (;; at = (at + 1) & slots.mask) {
      const u64 slot = slots.base[at].load(std::memory_order_relaxed);
      if (slot == 0) break;
      if ((slot >> 32) == high && static_cast<u32>(slot) != SLOT_ERASED &&
          load<i64>(reader_.key(table, static_cast<u32>(slot) - 1)) == key)
        return NONE;
    }
  next_record(table, table_index);
  const u32 row = table.row_count.load(std::memory_order_relaxed);
  store<i64>(table.keys.item(arena_, row), key);
  table.row_count.store(row + 1, std::memory_order_release);
  if (slots.base == nullptr || u64{shard.used} * 2 >= slots.mask + 1) {
    map_insert(table.map, hash, row, states_[table_index].key_map_bytes);
  } else {
    slots.base[at].store(high << 32 | (row + 1), std::memory_order_release);
    ++shard.used;
  }
  return row;
}

}  // namespace nowgraph
