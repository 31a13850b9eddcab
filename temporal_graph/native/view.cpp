#include "view.hpp"

namespace nowgraph {

namespace {

double as_number(const ColumnHeader& column, const char* payload) {
  switch (column.kind) {
    case Kind::numerical: return load<double>(payload);
    case Kind::timestamp: return static_cast<double>(load<i64>(payload));
    case Kind::coded: return load<u32>(payload);
    case Kind::boolean: return load<u8>(payload);
    case Kind::embedding: break;
  }
  return 0;
}

}  // namespace

Outcomes View::outcomes(u32 table_index, u32 column_index) {
  Outcomes out;
  const Pinned pinned(reader);
  const TableHeader& table = reader.table(table_index);
  const ColumnHeader& column = reader.columns(table)[column_index];
  std::vector<Reader::VersionKey> versions;
  for (u32 row = 0; row < pinned.snapshot.row_limit[table_index]; ++row) {
    reader.ask_cells_from(table, row);
    const char* record = reader.row(table, row);
    const u32 head = Reader::version_head(table, record).load(std::memory_order_acquire);
    if (head == NO_VERSION) {
      const char* payload = Reader::inline_bare(table, record) ? nullptr : reader.inline_cell(table, record, column_index);
      if (payload == nullptr) continue;
      out.row.push_back(row);
      out.event_time_us.push_back(Reader::inline_event_us(table, record));
      out.value.push_back(as_number(column, payload));
      out.visible_time_us.push_back(Reader::inline_visible_us(table, record));
      continue;
    }
    reader.versions(table, record, pinned.snapshot.sequence, versions);
    for (const auto& version : versions) {
      const char* payload = version.unit == NO_VERSION
                                ? reader.inline_cell(table, record, column_index)
                                : reader.version_cell(table, *reader.version(version.unit), column_index).payload;
      if (payload == nullptr) continue;
      out.row.push_back(row);
      out.event_time_us.push_back(versions.front().event_time_us);
      out.value.push_back(as_number(column, payload));
      out.visible_time_us.push_back(visible_time_us(version.event_time_us, version.known_time_us));
    }
  }
  return out;
}

}  // namespace nowgraph
