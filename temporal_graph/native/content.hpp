// The content of an event as one hash: FNV-1a over its cells in schema order. It tells a duplicate from a change and
// orders changes of equal times, the same in any process and in the Python twin.
//
//   cell: u16 index | u8 tag | payload     tags: 0 null, 1 f64, 2 i64, 3 u8, 4 u32 size + bytes, 5 u32 count + f32s,
//                                                6 u32 count + parts of a composite key, each tag + payload
#pragma once

#include "reader.hpp"

namespace nowgraph {

class ContentHash {
 public:
  void bytes(const void* data, std::size_t size) {
    const auto* cursor = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < size; ++i) value_ = (value_ ^ cursor[i]) * 0x100000001B3ull;
  }
  template <class T>
  void number(T value) {
    bytes(&value, sizeof value);
  }
  void text(std::string_view value) {
    number<u32>(static_cast<u32>(value.size()));
    bytes(value.data(), value.size());
  }
  u64 value() const { return value_; }

 private:
  u64 value_ = 0xCBF29CE484222325ull;
};

inline void hash_key(const Reader& reader, const TableHeader& table, u32 row, ContentHash& hash) {
  const char* key = reader.key(table, row);
  if (table.key_kind == KeyKind::integer) {
    hash.number<u8>(2);
    hash.number<i64>(load<i64>(key));
    return;
  }
  const std::string_view bytes = reader.string_at(load<u64>(key));
  if (table.key_parts > 1) {
    hash.number<u8>(6);
    hash.number<u32>(table.key_parts);
    hash.bytes(bytes.data(), bytes.size());
  } else {
    hash.number<u8>(4);
    hash.text(bytes);
  }
}

// Adds the cell `index` (links after columns) with this payload, nullptr for null.
inline void hash_cell(const Reader& reader, const TableHeader& table, u32 index, const char* payload,
                      ContentHash& hash) {
  hash.number<u16>(static_cast<u16>(index));
  if (payload == nullptr) {
    hash.number<u8>(0);
    return;
  }
  if (index >= table.column_count) {
    const LinkHeader& link = reader.link(table.links[index - table.column_count]);
    hash_key(reader, reader.table(link.parent), load<u32>(payload), hash);
    return;
  }
  const ColumnHeader& column = reader.columns(table)[index];
  switch (column.kind) {
    case Kind::numerical:
      hash.number<u8>(1);
      hash.number<double>(load<double>(payload));
      break;
    case Kind::timestamp:
      hash.number<u8>(2);
      hash.number<i64>(load<i64>(payload));
      break;
    case Kind::boolean:
      hash.number<u8>(3);
      hash.number<u8>(load<u8>(payload));
      break;
    case Kind::coded:
      hash.number<u8>(4);
      hash.text(reader.string_of(*reader.dictionary(column), load<u32>(payload)));
      break;
    case Kind::embedding:
      hash.number<u8>(5);
      hash.number<u32>(column.dim);
      hash.bytes(payload, 4 * column.dim);
      break;
  }
}

}  // namespace nowgraph
