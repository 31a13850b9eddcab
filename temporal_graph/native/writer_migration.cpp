// The writer's part that takes over a graph of a smaller schema: every row, every version, under its own clocks.
//
//   old rows, parents' tables first ─► versions, oldest first ─► RowChange, cells by name ─► insert or version ─► links
#include <algorithm>

#include "stored_change.hpp"
#include "writer.hpp"

namespace nowgraph {

namespace {

[[noreturn]] void lacks(const std::string& what) { throw ImageRefused("the image's graph cannot be migrated: " + what); }

u32 find_table(const Reader& reader, std::string_view name) {
  for (u32 t = 0; t < reader.graph().table_count; ++t)
    if (name == reader.table(t).name) return t;
  return NONE;
}

// Where the cells of an old table stand in the new one: columns, then links.
struct TableMap {
  u32 table = NONE;
  std::vector<u32> cells;
};

void check_column(const ColumnHeader& old, const ColumnHeader& now, const std::string& table) {
  if (old.kind != now.kind || old.joined != now.joined || old.dim != now.dim)
    lacks("table " + table + " has another kind of column " + now.name);
}

TableMap map_of_table(const Reader& old, const Reader& now, u32 index) {
  const TableHeader& from = old.table(index);
  const std::string name = from.name;
  TableMap map;
  map.table = find_table(now, name);
  if (map.table == NONE) lacks("the schema has no table " + name);
  const TableHeader& to = now.table(map.table);
  if (from.has_key != to.has_key || from.key_parts != to.key_parts || from.key_kind != to.key_kind ||
      !std::equal(from.key_part_is_text, from.key_part_is_text + from.key_parts, to.key_part_is_text))
    lacks("table " + name + " has another key");
  if (from.has_time != to.has_time) lacks("table " + name + " has a time in one of them");
  for (u32 c = 0; c < from.column_count; ++c) {
    const ColumnHeader& column = old.columns(from)[c];
    const auto* columns = now.columns(to);
    const auto* found = std::find_if(columns, columns + to.column_count, [&](const ColumnHeader& other) {
      return std::string_view(other.name) == column.name;
    });
    if (found == columns + to.column_count) lacks("table " + name + " has no column " + column.name + " any more");
    check_column(column, *found, name);
    map.cells.push_back(static_cast<u32>(found - columns));
  }
  for (u32 l = 0; l < from.link_count; ++l) {
    const LinkHeader& link = old.link(from.links[l]);
    u32 at = 0;
    while (at < to.link_count && std::string_view(now.link(to.links[at]).name) != link.name) ++at;
    if (at == to.link_count) lacks("table " + name + " has no link " + link.name + " any more");
    if (std::string_view(now.table(now.link(to.links[at]).parent).name) != old.table(link.parent).name)
      lacks("link " + std::string(link.name) + " of table " + name + " leads to another table");
    map.cells.push_back(to.column_count + at);
  }
  return map;
}

// Parents before their children, so that a row is there, and whole, before it is named; in a circle as they come.
std::vector<u32> parents_first(const Reader& old) {
  std::vector<u32> order;
  std::vector<u8> seen(old.graph().table_count);
  const auto visit = [&](const auto& self, u32 table) -> void {
    if (seen[table]++) return;
    for (u32 l = 0; l < old.table(table).link_count; ++l) self(self, old.link(old.table(table).links[l]).parent);
    order.push_back(table);
  };
  for (u32 t = 0; t < old.graph().table_count; ++t) visit(visit, t);
  return order;
}

}  // namespace

void Writer::take_over(const Reader& old, std::string_view old_state) {
  std::vector<TableMap> maps;
  for (u32 t = 0; t < old.graph().table_count; ++t) maps.push_back(map_of_table(old, reader_, t));
  StateIn in(old_state);
  erasures_.resume(in);
  erasures_.each([&](const KeyDigest&, ErasedKey& key) {
    key.table = maps[key.table].table;
    key.row = NONE;  // until a row is made that has it
  });
  std::vector<Reader::VersionKey> versions;
  for (const u32 t : parents_first(old)) {
    const TableHeader& from = old.table(t);
    const u32 index = maps[t].table;
    for (u32 row = 0; row < from.row_count.load(std::memory_order_relaxed); ++row) {
      const char* record = old.row(from, row);
      if (is_dropped(Reader::version_head(from, record).load(std::memory_order_relaxed))) continue;
      ensure_headroom(0);
      change_.table = index;
      change_.key = stored_key(old, from, row);
      old.versions(from, record, UINT64_MAX, versions);
      if (versions.empty()) find_or_create(index, change_.key);
      for (const Reader::VersionKey& version : versions) {
        stored_change(old, from, record, version, maps[t].cells, change_);
        apply_change(change_);
      }
    }
    table_of(index).latest_event_us.store(from.latest_event_us.load(std::memory_order_relaxed), std::memory_order_release);
  }
  const GraphHeader& graph = old.graph();
  const PublishedState& state = graph.published[graph.turn.load(std::memory_order_relaxed) & 1];
  for (u32 p = 0; p < state.partition_count; ++p)
    set_position(old.string_at(graph.partitions[p].topic), graph.partitions[p].partition, state.offsets[p]);
  sequence_ = std::max(sequence_, state.sequence);
  publish();
}

}  // namespace nowgraph
