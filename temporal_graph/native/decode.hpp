// nowgraph.v1.RowEvent, from wire bytes to checked cells.
//
//   bytes -> Decoder::decode -> RowChange (views into the bytes) -> Writer::apply, or the sampler's virtual seed
//
// One message type is read by hand because it is the hot path of ingest: no allocation, no copy. Unknown fields are
// skipped as protobuf asks, the last value of a field wins, and every refusal has a reason and a detail that never
// quotes a value.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "catalog.hpp"

namespace nowgraph {

// A key as the maps want it: an integer, or canonical bytes (the text itself, or tagged parts when composite).
struct KeyValue {
  bool present = false;
  bool integer = false;
  i64 number = 0;
  std::string_view bytes;
};

// A checked cell: what the column's kind asks for and nothing else.
struct CellValue {
  u32 index = 0;  // column, or column_count + link
  bool is_null = false;
  double number = 0;
  i64 integer = 0;       // timestamps
  bool boolean = false;
  std::string_view text;    // coded ones
  const char* vector = nullptr;  // packed little-endian floats
  KeyValue key;             // links
};

struct RowChange {
  u32 table = NONE;
  Operation operation = Operation::insert;
  KeyValue key;
  i64 event_time_us = ALWAYS_US;
  i64 known_time_us = ALWAYS_US;
  bool has_event_time = false;
  bool has_known_time = false;
  std::string_view event_id;
  std::vector<CellValue> cells;  // by index, ascending, each once
};

struct Refusal {
  const char* reason = nullptr;  // nullptr: accepted
  std::string detail;
};

class Decoder {
 public:
  Decoder(const Arena& arena, const Catalog& catalog) : arena_(arena), catalog_(catalog) {}

  // False with a refusal when the bytes are no RowEvent or do not fit the schema. Views in `change` live as long as
  // the bytes and the next call of this decoder.
  bool decode(std::string_view bytes, RowChange& change, Refusal& refusal);

 private:
  struct RawCell;
  bool refuse(Refusal& refusal, const char* reason, std::string detail) const {
    refusal.reason = reason;
    refusal.detail = std::move(detail);
    return false;
  }
  bool read_cell(std::string_view bytes, const TableHeader& table, u32 table_index, u32 guess, CellValue& cell,
                 Refusal& refusal);
  bool check_cell(const RawCell& raw, const TableHeader& table, u32 table_index, CellValue& cell, Refusal& refusal);
  bool check_column(const RawCell& raw, const ColumnHeader& column, CellValue& cell, Refusal& refusal);
  bool join_texts(std::string_view list, CellValue& cell);
  bool read_key(std::string_view bytes, const TableHeader& table, KeyValue& key, Refusal& refusal,
                const std::string& where);
  bool key_of_scalar(const RawCell& raw, const TableHeader& parent, KeyValue& key) const;
  std::string_view keep(std::string text);

  const Arena& arena_;
  const Catalog& catalog_;
  std::deque<std::string> kept_;  // composite keys, joined sets, numbers as text: bytes that the event does not hold
  std::size_t kept_count_ = 0;
};

}  // namespace nowgraph
