#include "stored_change.hpp"

#include <algorithm>

namespace nowgraph {

namespace {

CellValue stored_cell(const Reader& reader, const TableHeader& table, u32 index, const char* payload, u32 to) {
  CellValue cell;
  cell.index = to;
  cell.is_null = payload == nullptr;
  if (cell.is_null) return cell;
  if (index >= table.column_count) {
    const LinkHeader& link = reader.link(table.links[index - table.column_count]);
    cell.key = stored_key(reader, reader.table(link.parent), load<u32>(payload));
    return cell;
  }
  const ColumnHeader& column = reader.columns(table)[index];
  switch (column.kind) {
    case Kind::numerical: cell.number = load<double>(payload); break;
    case Kind::timestamp: cell.integer = load<i64>(payload); break;
    case Kind::coded: cell.text = reader.string_of(*reader.dictionary(column), load<u32>(payload)); break;
    case Kind::boolean: cell.boolean = load<u8>(payload) != 0; break;
    case Kind::embedding: cell.vector = payload; break;
  }
  return cell;
}

}  // namespace

KeyValue stored_key(const Reader& reader, const TableHeader& table, u32 row) {
  KeyValue key;
  key.present = true;
  key.integer = table.key_kind == KeyKind::integer;
  if (key.integer)
    key.number = load<i64>(reader.key(table, row));
  else
    key.bytes = reader.string_at(load<u64>(reader.key(table, row)));
  return key;
}

void stored_change(const Reader& reader, const TableHeader& table, const char* record, const Reader::VersionKey& version,
                   const std::vector<u32>& cells, RowChange& change) {
  change.operation = version.operation;
  change.event_time_us = version.event_time_us;
  change.known_time_us = version.known_time_us;
  change.cells.clear();
  const auto add = [&](u32 index, const char* payload) {
    change.cells.push_back(stored_cell(reader, table, index, payload, cells[index]));
  };
  if (version.unit == NO_VERSION) {
    for (u32 index = 0; index < cells.size(); ++index)
      if (const char* payload = reader.inline_cell(table, record, index); payload != nullptr) add(index, payload);
  } else {
    reader.each_cell(table, *reader.version(version.unit), add);
  }
  std::sort(change.cells.begin(), change.cells.end(),
            [](const CellValue& a, const CellValue& b) { return a.index < b.index; });
}

}  // namespace nowgraph
