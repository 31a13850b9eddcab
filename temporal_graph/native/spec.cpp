#include "spec.hpp"

#include <algorithm>

namespace nowgraph {

namespace {

void name_into(char (&to)[MAX_NAME_BYTES], const std::string& name) {
  if (name.size() >= MAX_NAME_BYTES) throw ArenaRefused("name longer than " + std::to_string(MAX_NAME_BYTES - 1) + " bytes: " + name);
  std::memset(to, 0, MAX_NAME_BYTES);
  std::memcpy(to, name.data(), name.size());
}

void chunks_into(Arena& arena, Chunks& chunks, u32 stride, u32 log2_items) {
  chunks.stride = stride;
  chunks.log2_items = log2_items;
  chunks.directory_capacity = 64;
  chunks.chunk_count = 0;
  chunks.directory.store(arena.allocate(8 * chunks.directory_capacity), std::memory_order_release);
}

u32 cell_bytes(const ColumnSpec& column) {
  switch (column.kind) {
    case Kind::numerical:
    case Kind::timestamp: return 8;
    case Kind::coded: return 4;
    case Kind::embedding: return 4 * column.dim;
    case Kind::boolean: return 1;
  }
  return 0;
}

// Columns widest first, so that nothing is padded but the record's end.
u32 place_columns(Arena& arena, const TableSpec& spec, TableHeader& table, u32 offset) {
  table.column_count = static_cast<u32>(spec.columns.size());
  table.columns = arena.allocate(std::max<u64>(32, sizeof(ColumnHeader) * spec.columns.size()));
  auto* columns = arena.at<ColumnHeader>(table.columns);
  for (u32 c = 0; c < table.column_count; ++c) {
    const ColumnSpec& column = spec.columns[c];
    name_into(columns[c].name, column.name);
    columns[c].kind = column.kind;
    columns[c].joined = column.joined;
    columns[c].is_outcome = column.is_outcome;
    columns[c].dim = column.dim;
    u32& count = table.kind_counts[static_cast<int>(column.kind)];
    columns[c].kind_index = count;
    count += column.kind == Kind::embedding ? column.dim : 1;
    if (column.kind != Kind::coded) continue;
    columns[c].dictionary = arena.allocate(sizeof(Dictionary));
    auto* dictionary = arena.at<Dictionary>(columns[c].dictionary);
    dictionary->map = arena.allocate(sizeof(Map));
    chunks_into(arena, dictionary->codes, sizeof(CodeEntry), 12);
    dictionary->size.store(1);
  }
  for (const Kind kind : {Kind::numerical, Kind::timestamp, Kind::coded, Kind::embedding, Kind::boolean})
    for (u32 c = 0; c < table.column_count; ++c)
      if (spec.columns[c].kind == kind) {
        columns[c].offset = offset;
        offset += cell_bytes(spec.columns[c]);
      }
  return offset;
}

void place_record(Arena& arena, const TableSpec& spec, TableHeader& table) {
  const u32 offset = 8 * table.child_link_count;
  table.event_offset = offset;
  table.version_offset = offset + 16;
  table.parents_offset = offset + 20;
  table.cells_offset = table.parents_offset + 4 * table.link_count;
  table.columns_on_disk = spec.columns_on_disk;
  u32 end = place_columns(arena, spec, table, table.columns_on_disk ? 0 : table.cells_offset);
  if (table.columns_on_disk) {
    chunks_into(arena, table.slots, (end + 3) / 4 * 4, CHUNK_ROWS_LOG2);
    end = table.cells_offset + 4;
  }
  const u64 version_bytes = sizeof(VersionRecord) + 8 * (u64{table.column_count} + table.link_count) +  // padding too
                            (table.columns_on_disk ? sizeof(DiskCells) + 4ull * table.link_count : end - table.parents_offset);
  if (version_bytes > u64{VERSION_UNIT_BYTES} << VERSION_CHUNK_LOG2)
    throw ArenaRefused("a row of table " + spec.name + " takes " + std::to_string(version_bytes) + " bytes in memory; at most " +
                       std::to_string(u64{VERSION_UNIT_BYTES} << VERSION_CHUNK_LOG2) + " fit: keep its columns on disk");
  const u32 align = table.child_link_count > 0 ? 8 : 4;
  table.stride = std::max(32u, (end + align - 1) / align * align);
  chunks_into(arena, table.keys, 8, CHUNK_ROWS_LOG2);
  chunks_into(arena, table.rows, table.stride, CHUNK_ROWS_LOG2);
}

}  // namespace

void format_graph(Arena& arena, const GraphSpec& spec, std::string_view fingerprint, i64 generation) {
  if (spec.tables.size() > MAX_TABLES) throw ArenaRefused("more than " + std::to_string(MAX_TABLES) + " tables");
  if (spec.links.size() > MAX_LINKS) throw ArenaRefused("more than " + std::to_string(MAX_LINKS) + " links");
  if (arena.columns() == nullptr && std::ranges::any_of(spec.tables, &TableSpec::columns_on_disk))
    throw ArenaRefused("a table's columns are to lie on disk, and there is no file for them");
  arena.format(fingerprint, generation);
  const u64 offset = arena.allocate(sizeof(GraphHeader));
  arena.header().graph_offset = offset;
  auto& graph = *arena.at<GraphHeader>(offset);
  graph.table_count = static_cast<u32>(spec.tables.size());
  graph.link_count = static_cast<u32>(spec.links.size());
  chunks_into(arena, graph.versions, VERSION_UNIT_BYTES, VERSION_CHUNK_LOG2);
  for (u32 t = 0; t < graph.table_count; ++t) {
    const TableSpec& from = spec.tables[t];
    if (from.columns.size() > MAX_COLUMNS) throw ArenaRefused("more than " + std::to_string(MAX_COLUMNS) + " columns in " + from.name);
    if (from.key_parts_are_text.size() > 16) throw ArenaRefused("more than 16 key columns in " + from.name);
    graph.tables[t] = arena.allocate(sizeof(TableHeader));
    auto& table = *arena.at<TableHeader>(graph.tables[t]);
    name_into(table.name, from.name);
    table.has_key = !from.key_parts_are_text.empty();
    table.key_parts = std::max<u32>(1, static_cast<u32>(from.key_parts_are_text.size()));
    table.key_part_is_text[0] = 1;
    for (u32 p = 0; p < from.key_parts_are_text.size(); ++p) table.key_part_is_text[p] = from.key_parts_are_text[p];
    table.key_kind = table.key_parts == 1 && !table.key_part_is_text[0] ? KeyKind::integer : KeyKind::bytes;
    table.has_time = from.has_time;
    table.known_time = from.known_time;
    table.lateness_us = from.lateness_us;
    table.future_us = from.future_us;
    table.retention_age_us = from.retention_age_us;
    table.retention_degree = from.retention_degree;
    table.map = arena.allocate(sizeof(Map));
    table.latest_event_us.store(ALWAYS_US);
  }
  for (u32 l = 0; l < graph.link_count; ++l) {
    LinkHeader& link = graph.links[l];
    name_into(link.name, spec.links[l].name);
    link.child = spec.links[l].child;
    link.parent = spec.links[l].parent;
    link.erases = spec.links[l].erases;
    auto& child = *arena.at<TableHeader>(graph.tables[link.child]);
    auto& parent = *arena.at<TableHeader>(graph.tables[link.parent]);
    link.index_in_child = child.link_count;
    link.word_in_parent = parent.child_link_count;
    child.links[child.link_count++] = l;
    parent.child_links[parent.child_link_count++] = l;
  }
  for (u32 t = 0; t < graph.table_count; ++t)
    place_record(arena, spec.tables[t], *arena.at<TableHeader>(graph.tables[t]));
}

namespace {

bool fits_table(const Arena& arena, const TableSpec& spec, const TableHeader& table) {
  const u32 parts = static_cast<u32>(spec.key_parts_are_text.size());
  if (spec.name != table.name || table.has_key != (parts > 0) || table.key_parts != std::max(1u, parts) ||
      table.has_time != spec.has_time || table.column_count != spec.columns.size() ||
      table.columns_on_disk != spec.columns_on_disk)
    return false;
  for (u32 p = 0; p < parts; ++p)
    if (table.key_part_is_text[p] != spec.key_parts_are_text[p]) return false;
  const auto* columns = arena.at<ColumnHeader>(table.columns);
  return std::equal(spec.columns.begin(), spec.columns.end(), columns, [](const ColumnSpec& from, const ColumnHeader& to) {
    return from.name == to.name && from.kind == to.kind && from.joined == (to.joined != 0) && from.dim == to.dim;
  });
}

}  // namespace

bool fits_spec(const Arena& arena, const GraphSpec& spec) {
  const auto& graph = *arena.at<GraphHeader>(arena.header().graph_offset);
  if (graph.table_count != spec.tables.size() || graph.link_count != spec.links.size()) return false;
  for (u32 l = 0; l < graph.link_count; ++l) {
    const LinkHeader& link = graph.links[l];
    const LinkSpec& from = spec.links[l];
    if (from.name != link.name || from.child != link.child || from.parent != link.parent) return false;
  }
  for (u32 t = 0; t < graph.table_count; ++t)
    if (!fits_table(arena, spec.tables[t], *arena.at<TableHeader>(graph.tables[t]))) return false;
  return true;
}

void take_spec(Arena& arena, const GraphSpec& spec) {
  if (!fits_spec(arena, spec)) throw ImageRefused("the image's graph has other tables, columns or links");
  auto& graph = *arena.at<GraphHeader>(arena.header().graph_offset);
  for (u32 l = 0; l < graph.link_count; ++l) graph.links[l].erases = spec.links[l].erases;
  for (u32 t = 0; t < graph.table_count; ++t) {
    auto& table = *arena.at<TableHeader>(graph.tables[t]);
    const TableSpec& from = spec.tables[t];
    table.known_time = from.known_time;
    table.lateness_us = from.lateness_us;
    table.future_us = from.future_us;
    table.retention_age_us = from.retention_age_us;
    table.retention_degree = from.retention_degree;
    auto* columns = arena.at<ColumnHeader>(table.columns);
    for (u32 c = 0; c < table.column_count; ++c) columns[c].is_outcome = from.columns[c].is_outcome;
  }
}

}  // namespace nowgraph
