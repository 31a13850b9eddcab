// Retention, judged from record times alone, and the account of memory.
#include "writer.hpp"

namespace nowgraph {

// Drops rows whose newest change lies beyond the table's age bound, counted back from the newest event time of the
// graph or from how far the log was read, and list entries beyond its degree bound. A dropped row is no neighbour and no
// key any more; as a parent it is bare.
Evicted Writer::evict(i64 as_of_us) {
  Evicted evicted;
  i64 newest = ALWAYS_US;
  for (u32 t = 0; t < graph_.table_count; ++t)
    newest = std::max(newest, table_of(t).latest_event_us.load(std::memory_order_relaxed));
  newest = std::min(newest, as_of_us);
  std::vector<Reader::VersionKey> versions;
  for (u32 t = 0; t < graph_.table_count; ++t) {
    TableHeader& table = table_of(t);
    if (table.retention_age_us == INT64_MAX || newest < ALWAYS_US + table.retention_age_us) continue;
    const i64 bound = newest - table.retention_age_us;
    for (u32 row = 0; row < table.row_count.load(std::memory_order_relaxed); ++row) {
      char* record = table.rows.item(arena_, row);
      auto& head = Reader::version_head(table, record);
      if (is_dropped(head.load(std::memory_order_relaxed))) continue;
      i64 last = inline_counts(table, record) ? Reader::inline_visible_us(table, record) : ALWAYS_US;
      if (head.load(std::memory_order_relaxed) != NO_VERSION) {
        reader_.versions(table, record, UINT64_MAX, versions);
        for (const auto& version : versions)
          last = std::max(last, visible_time_us(version.event_time_us, version.known_time_us));
      }
      if (last == ALWAYS_US || last >= bound) continue;
      widen(table, Shape::mixed);
      table.moved.store(1, std::memory_order_release);
      head.store(EVICTED, std::memory_order_release);
      arena_.written(&head, sizeof head);
      forget_key(table, row);
      ++evicted.rows;
    }
  }
  for (u32 l = 0; l < graph_.link_count; ++l) evicted.entries += trim_lists(graph_.links[l]);
  if (evicted.rows + evicted.entries > 0) graph_.evictions.fetch_add(1, std::memory_order_seq_cst);
  return evicted;
}

u64 Writer::trim_lists(const LinkHeader& link) {
  const TableHeader& child = table_of(link.child);
  const TableHeader& parent = table_of(link.parent);
  if (child.retention_age_us == INT64_MAX && child.retention_degree == NONE) return 0;
  u64 dropped = 0;
  for (u32 row = 0; row < parent.row_count.load(std::memory_order_relaxed); ++row) {
    auto& word = reinterpret_cast<std::atomic<u64>*>(parent.rows.item(arena_, row))[link.word_in_parent];
    const u64 now = word.load(std::memory_order_relaxed);
    const u32 count = list_count(now);
    u32 drop = count > child.retention_degree ? count - child.retention_degree : 0;
    while (drop < count) {
      const char* record = child.rows.item(arena_, reader_.child(adjacency_.at(now, count, drop)));
      if (!is_dropped(Reader::version_head(child, record).load(std::memory_order_relaxed))) break;
      ++drop;
    }
    adjacency_.trim(word, drop);
    dropped += drop;
  }
  return dropped;
}

Memory Writer::memory() const {
  Memory memory;
  memory.arena_bytes = arena_.bytes();
  memory.used_bytes = arena_.header().used.load(std::memory_order_relaxed);
  memory.idle_bytes = blocks_.idle_bytes();
  memory.version_bytes = version_bytes_;
  memory.versions = versions_;
  memory.columns_bytes = arena_.header().columns_used.load(std::memory_order_relaxed);
  memory.adjacency = adjacency_.bytes();
  for (u32 t = 0; t < graph_.table_count; ++t) {
    const TableHeader& table = table_of(t);
    const TableState& state = states_[t];
    TableMemory part;
    part.name = table.name;
    part.rows = table.row_count.load(std::memory_order_relaxed);
    part.topology_bytes = part.rows * (16ull + 8 * table.child_link_count + 4 * table.link_count);
    part.key_bytes = part.rows * 8 + state.key_string_bytes;
    part.key_map_bytes = state.key_map_bytes + state.dense_bytes;
    part.version_head_bytes = part.rows * 4;
    part.cell_bytes = part.rows * (table.stride - table.cells_offset);
    part.disk_bytes = u64{table.slot_count} * table.slots.stride;
    part.dictionary_bytes = state.dictionary_bytes;
    memory.tables.push_back(part);
  }
  return memory;
}

}  // namespace nowgraph
