// The bulk path: whole columns of inserts into one table with integer keys, and the prefetches that make it fast.
#include "writer.hpp"

namespace nowgraph {

namespace {

// How far ahead of the row being written its memory is asked for: the map's slots, the parents' records (key and list
// words), then the ends of the lists.
constexpr u64 SLOT_AHEAD = 32;
constexpr u64 RECORD_AHEAD = 24;
constexpr u64 WORD_AHEAD = 16;
constexpr u64 TAIL_AHEAD = 8;
constexpr u64 RING = 32;

}  // namespace

void Writer::append(u32 table_index, const i64* keys, const i64* event_time_us, const i64* known_time_us,
                    const std::vector<const i64*>& parents, u64 count, Applied& result) {
  TableHeader& table = table_of(table_index);
  std::vector<std::vector<u32>> ring(table.link_count, std::vector<u32>(RING, NONE));
  struct Slots {
    const std::atomic<u64>* base;
    u64 mask;
    u64 home;
    u64 high;
  };
  const auto slots_of = [&](const TableHeader& of, i64 key) -> Slots {
    const u64 hash = hash_integer(key);
    const u64 word = reader_.map_of(of)->shards[hash & (MAP_SHARDS - 1)].word.load(std::memory_order_relaxed);
    if (word == 0) return {nullptr, 0, 0, 0};
    const u64 mask = (1ull << (word & 63)) - 1;
    return {arena_.at<std::atomic<u64>>((word >> 6) << 5), mask, (hash >> 32) & mask, hash >> 32};
  };
  const auto prefetch_slot = [&](const TableHeader& of, i64 key) {
    if (const Slots slots = slots_of(of, key); slots.base != nullptr) prefetch(slots.base + slots.home);
  };
  // Of the row whose hash agrees, which is the key's own but once in billions.
  const auto prefetch_record = [&](const TableHeader& of, i64 key) {
    const Slots slots = slots_of(of, key);
    if (slots.base == nullptr) return;
    for (u64 at = slots.home;; at = (at + 1) & slots.mask) {
      const u64 slot = slots.base[at].load(std::memory_order_relaxed);
      if (slot == 0) return;
      if ((slot >> 32) != slots.high || static_cast<u32>(slot) == SLOT_ERASED) continue;
      prefetch_write(of.rows.item(arena_, static_cast<u32>(slot) - 1));
      return;
    }
  };
  const auto parent_table = [&](u32 l) -> TableHeader& { return table_of(graph_.links[table.links[l]].parent); };
  for (u64 i = 0; i < count; ++i) {
    if ((i & 4095) == 0) ensure_headroom(u64{4096} * 256);
    if (i + SLOT_AHEAD < count) {
      prefetch_slot(table, keys[i + SLOT_AHEAD]);
      for (u32 l = 0; l < table.link_count; ++l) prefetch_slot(parent_table(l), parents[l][i + SLOT_AHEAD]);
    }
    if (i + RECORD_AHEAD < count)
      for (u32 l = 0; l < table.link_count; ++l) prefetch_record(parent_table(l), parents[l][i + RECORD_AHEAD]);
    if (i + WORD_AHEAD < count)
      for (u32 l = 0; l < table.link_count; ++l)
        ring[l][(i + WORD_AHEAD) % RING] = reader_.find(parent_table(l), parents[l][i + WORD_AHEAD]);
    if (i + TAIL_AHEAD < count)
      for (u32 l = 0; l < table.link_count; ++l)
        if (const u32 row = ring[l][(i + TAIL_AHEAD) % RING]; row != NONE) {
          const LinkHeader& link = graph_.links[table.links[l]];
          prefetch_write(adjacency_.tail_address(
              Reader::list_word_of(parent_table(l).rows.item(arena_, row), link.word_in_parent)));
        }
    if (reader_.find(table, keys[i]) != NONE) {
      ++result.duplicate;
      continue;
    }
    KeyValue key;
    key.present = key.integer = true;
    key.number = keys[i];
    ++sequence_;
    const u32 row = create_row(table_index, table, key);
    char* record = table.rows.item(arena_, row);
    store<i64>(record + table.event_offset, event_time_us[i]);
    store<i64>(record + table.event_offset + 8, known_time_us == nullptr ? event_time_us[i] : known_time_us[i]);
    for (u32 l = 0; l < table.link_count; ++l) {
      u32 parent = i >= WORD_AHEAD ? ring[l][i % RING] : NONE;
      if (parent == NONE) {  // not there yet when it was looked up ahead
        key.number = parents[l][i];
        parent = find_or_create(graph_.links[table.links[l]].parent, key);
      }
      store<u32>(record + table.parents_offset + 4 * l, parent);
    }
    link_row(table, row, record);
    if (event_time_us[i] > table.latest_event_us.load(std::memory_order_relaxed))
      table.latest_event_us.store(event_time_us[i], std::memory_order_release);
    ++result.applied;
    if ((i & 8191) == 8191) blocks_.reclaim(false);
  }
}

}  // namespace nowgraph
