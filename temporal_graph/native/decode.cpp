#include "decode.hpp"

#include <algorithm>
#include <cmath>

namespace nowgraph {

namespace {

// A cursor over one protobuf message.
class Wire {
 public:
  explicit Wire(std::string_view bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}
  bool done() const { return at_ >= end_; }

  bool varint(u64& value) {
    value = 0;
    for (int shift = 0; shift < 70 && at_ < end_; shift += 7) {
      const auto byte = static_cast<u8>(*at_++);
      if (shift < 64) value |= static_cast<u64>(byte & 0x7F) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool tag(u32& field, u32& wire_type) {
    u64 value;
    if (!varint(value) || (value >> 3) == 0 || (value >> 3) > 0x1FFFFFFF) return false;
    field = static_cast<u32>(value >> 3);
    wire_type = static_cast<u32>(value & 7);
    return true;
  }
  bool bytes(std::string_view& value) {
    u64 size;
    if (!varint(size) || size > static_cast<u64>(end_ - at_)) return false;
    value = {at_, static_cast<std::size_t>(size)};
    at_ += size;
    return true;
  }
  template <class T>
  bool fixed(T& value) {
    if (static_cast<std::size_t>(end_ - at_) < sizeof(T)) return false;
    value = load<T>(at_);
    at_ += sizeof(T);
    return true;
  }
  bool skip(u32 wire_type) {
    u64 number = 0;
    std::string_view view;
    u32 word;
    switch (wire_type) {
      case 0: return varint(number);
      case 1: return fixed(number);
      case 2: return bytes(view);
      case 5: return fixed(word);
      default: return false;  // groups are not of proto3
    }
  }

 private:
  const char* at_;
  const char* end_;
};

bool valid_utf8(std::string_view text) {
  const auto* at = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = at + text.size();
  while (at < end) {
    while (end - at >= 8 && (load<u64>(at) & 0x8080808080808080ull) == 0) at += 8;
    if (at >= end) break;
    const unsigned char lead = *at;
    if (lead < 0x80) {
      ++at;
      continue;
    }
    int extra;
    u32 code;
    if (lead >= 0xC2 && lead <= 0xDF) extra = 1, code = lead & 0x1F;
    else if (lead >= 0xE0 && lead <= 0xEF) extra = 2, code = lead & 0x0F;
    else if (lead >= 0xF0 && lead <= 0xF4) extra = 3, code = lead & 0x07;
    else return false;
    if (end - at <= extra) return false;
    for (int i = 1; i <= extra; ++i) {
      if ((at[i] & 0xC0) != 0x80) return false;
      code = (code << 6) | (at[i] & 0x3F);
    }
    if (extra == 2 && (code < 0x800 || (code >= 0xD800 && code <= 0xDFFF))) return false;
    if (extra == 3 && (code < 0x10000 || code > 0x10FFFF)) return false;
    at += extra + 1;
  }
  return true;
}

enum class Field : u8 { absent, null, number, integer, text, boolean, timestamp, texts, vector, key };

const char* const KIND_NAMES[] = {"a number", "a timestamp", "text", "an embedding", "a boolean"};

}  // namespace

struct Decoder::RawCell {
  Field field = Field::absent;
  double number = 0;
  i64 integer = 0;
  bool boolean = false;
  std::string_view bytes;
};

std::string_view Decoder::keep(std::string text) {
  if (kept_count_ == kept_.size()) kept_.emplace_back();
  kept_[kept_count_] = std::move(text);
  return kept_[kept_count_++];
}

bool Decoder::decode(std::string_view bytes, RowChange& change, Refusal& refusal) {
  kept_count_ = 0;
  change.table = NONE;
  change.key = {};
  change.has_event_time = change.has_known_time = false;
  change.event_id = {};
  change.cells.clear();
  // The table may stand behind the cells on the wire: cells are collected as bytes first.
  thread_local std::vector<std::string_view> cells;
  cells.clear();
  std::string_view table_name, key_bytes;
  u64 operation = 0;
  bool has_key = false;
  for (Wire wire(bytes); !wire.done();) {
    u32 field, type;
    std::string_view view;
    u64 number = 0;
    if (!wire.tag(field, type)) return refuse(refusal, "malformed", "not a RowEvent: bad tag");
    const bool sized = field == 1 || field == 2 || field == 4 || field == 7;
    const bool varint = field == 3 || field == 5 || field == 6;
    if ((sized && type != 2) || (varint && type != 0))
      return refuse(refusal, "malformed", "not a RowEvent: field " + std::to_string(field) + " has a wrong wire type");
    if (sized ? !wire.bytes(view) : varint ? !wire.varint(number) : !wire.skip(type))
      return refuse(refusal, "malformed", "not a RowEvent: truncated in field " + std::to_string(field));
    switch (field) {
      case 1: change.event_id = view; break;
      case 2: table_name = view; break;
      case 3: operation = number; break;
      case 4: key_bytes = view; has_key = true; break;
      case 5: change.event_time_us = static_cast<i64>(number); change.has_event_time = true; break;
      case 6: change.known_time_us = static_cast<i64>(number); change.has_known_time = true; break;
      case 7: cells.push_back(view); break;
      default: break;
    }
  }
  if (!valid_utf8(table_name) || !valid_utf8(change.event_id))
    return refuse(refusal, "malformed", "not a RowEvent: text is not UTF-8");
  change.table = catalog_.find_table(table_name);
  if (change.table == NONE)
    return refuse(refusal, "unknown_table", "table \"" + std::string(table_name.substr(0, 100)) + "\" is not in the schema");
  if (operation < 1 || operation > 4)
    return refuse(refusal, "bad_operation", "operation " + std::to_string(operation) + ", expected insert, upsert, delete or erase");
  change.operation = static_cast<Operation>(operation);
  const TableHeader& table = *arena_.at<TableHeader>(Reader::graph_of(arena_)->tables[change.table]);
  if (table.has_key && has_key && !read_key(key_bytes, table, change.key, refusal, "key")) return false;
  if (table.has_key && !change.key.present)
    return refuse(refusal, "missing_key", "table \"" + catalog_.table(change.table).name + "\" has a primary key, the event has none");
  if (!table.has_key && has_key && !key_bytes.empty())
    return refuse(refusal, "bad_key", "table \"" + catalog_.table(change.table).name + "\" has no primary key, the event has one");
  if (change.operation == Operation::erase && !table.has_key)
    return refuse(refusal, "bad_operation", "table \"" + catalog_.table(change.table).name + "\" has no primary key: its rows are erased with their parents");
  if (change.operation == Operation::remove || change.operation == Operation::erase) return true;  // their cells say nothing
  u32 guess = 0;
  for (const std::string_view cell_bytes : cells) {
    CellValue& cell = change.cells.emplace_back();
    if (!read_cell(cell_bytes, table, change.table, guess, cell, refusal)) return false;
    guess = cell.index + 1;
  }
  const auto by_index = [](const CellValue& a, const CellValue& b) { return a.index < b.index; };
  if (!std::is_sorted(change.cells.begin(), change.cells.end(), by_index))
    std::stable_sort(change.cells.begin(), change.cells.end(), by_index);
  for (std::size_t i = 1; i < change.cells.size(); ++i)
    if (change.cells[i].index == change.cells[i - 1].index)
      return refuse(refusal, "duplicate_column", "column \"" + catalog_.table(change.table).cells[change.cells[i].index] + "\" is given twice");
  return true;
}

bool Decoder::read_cell(std::string_view bytes, const TableHeader& table, u32 table_index, u32 guess, CellValue& cell,
                        Refusal& refusal) {
  std::string_view name;
  RawCell raw;
  for (Wire wire(bytes); !wire.done();) {
    u32 field, type;
    u64 number = 0;
    bool good = wire.tag(field, type);
    if (good) switch (field) {
        case 1: good = type == 2 && wire.bytes(name); break;
        case 2: good = type == 0 && wire.varint(number); raw.field = Field::null; break;
        case 3: good = type == 1 && wire.fixed(raw.number); raw.field = Field::number; break;
        case 4: good = type == 0 && wire.varint(number); raw.integer = static_cast<i64>(number); raw.field = Field::integer; break;
        case 5: good = type == 2 && wire.bytes(raw.bytes); raw.field = Field::text; break;
        case 6: good = type == 0 && wire.varint(number); raw.boolean = number != 0; raw.field = Field::boolean; break;
        case 7: good = type == 0 && wire.varint(number); raw.integer = static_cast<i64>(number); raw.field = Field::timestamp; break;
        case 8: good = type == 2 && wire.bytes(raw.bytes); raw.field = Field::texts; break;
        case 9: good = type == 2 && wire.bytes(raw.bytes); raw.field = Field::vector; break;
        case 10: good = type == 2 && wire.bytes(raw.bytes); raw.field = Field::key; break;
        default: good = wire.skip(type);
      }
    if (!good) return refuse(refusal, "malformed", "not a RowEvent: bad cell");
  }
  if (!valid_utf8(name)) return refuse(refusal, "malformed", "not a RowEvent: text is not UTF-8");
  cell.index = catalog_.find_cell(table_index, name, guess);
  if (cell.index == NONE)
    return refuse(refusal, "unknown_column", "table \"" + catalog_.table(table_index).name + "\" has no column \"" + std::string(name.substr(0, 100)) + "\"");
  if (raw.field == Field::absent || raw.field == Field::null) {
    cell.is_null = true;
    return true;
  }
  return check_cell(raw, table, table_index, cell, refusal);
}

bool Decoder::check_cell(const RawCell& raw, const TableHeader& table, u32 table_index, CellValue& cell,
                         Refusal& refusal) {
  const std::string& name = catalog_.table(table_index).cells[cell.index];
  const GraphHeader& graph = *Reader::graph_of(arena_);
  if (cell.index < table.column_count)
    return check_column(raw, arena_.at<ColumnHeader>(table.columns)[cell.index], cell, refusal);
  const LinkHeader& link = graph.links[table.links[cell.index - table.column_count]];
  const TableHeader& parent = *arena_.at<TableHeader>(graph.tables[link.parent]);
  if (raw.field == Field::key) return read_key(raw.bytes, parent, cell.key, refusal, "link \"" + name + "\"");
  if (!key_of_scalar(raw, parent, cell.key))
    return refuse(refusal, "wrong_kind", "link \"" + name + "\": not a key of table \"" + parent.name + "\"");
  return true;
}

bool Decoder::key_of_scalar(const RawCell& raw, const TableHeader& parent, KeyValue& key) const {
  if (parent.key_parts > 1) return false;
  key.present = true;
  if (parent.key_kind == KeyKind::integer) {
    key.integer = true;
    key.number = raw.integer;
    return raw.field == Field::integer;
  }
  key.bytes = raw.bytes;
  return raw.field == Field::text && valid_utf8(raw.bytes);
}

bool Decoder::check_column(const RawCell& raw, const ColumnHeader& column, CellValue& cell, Refusal& refusal) {
  const auto wrong = [&](const char* found) {
    return refuse(refusal, "wrong_kind", "column \"" + std::string(column.name) + "\": " + found + ", expected " +
                  (column.joined ? "a list of texts" : KIND_NAMES[static_cast<int>(column.kind)]));
  };
  static const char* const found[] = {"nothing", "null", "a number", "an integer", "text", "a boolean", "a timestamp",
                                      "a list of texts", "a vector", "a key"};
  const char* const name = found[static_cast<int>(raw.field)];
  switch (column.kind) {
    case Kind::numerical:
      if (raw.field != Field::number && raw.field != Field::integer) return wrong(name);
      cell.number = (raw.field == Field::number ? raw.number : static_cast<double>(raw.integer)) + 0.0;
      if (!std::isfinite(cell.number))
        return refuse(refusal, "not_finite", "column \"" + std::string(column.name) + "\": not a finite number");
      return true;
    case Kind::timestamp:
      if (raw.field != Field::timestamp) return wrong(name);
      cell.integer = raw.integer;
      cell.is_null = raw.integer == NULL_TIMESTAMP_US;
      return true;
    case Kind::boolean:
      if (raw.field != Field::boolean) return wrong(name);
      cell.boolean = raw.boolean;
      return true;
    case Kind::coded:
      if (column.joined) {
        if (raw.field != Field::texts) return wrong(name);
        if (!join_texts(raw.bytes, cell))
          return refuse(refusal, "malformed", "column \"" + std::string(column.name) + "\": bad list of texts");
        return true;
      }
      if (raw.field == Field::integer) {
        cell.text = keep(std::to_string(raw.integer));
        return true;
      }
      if (raw.field != Field::text) return wrong(name);
      if (!valid_utf8(raw.bytes))
        return refuse(refusal, "malformed", "column \"" + std::string(column.name) + "\": text is not UTF-8");
      cell.text = raw.bytes;
      return true;
    case Kind::embedding: {
      if (raw.field != Field::vector) return wrong(name);
      std::string floats;
      for (Wire wire(raw.bytes); !wire.done();) {
        u32 field, type;
        std::string_view packed;
        float single = 0;
        bool good = wire.tag(field, type);
        if (good && field == 1 && type == 2) good = wire.bytes(packed), floats.append(packed);
        else if (good && field == 1 && type == 5) good = wire.fixed(single), floats.append(reinterpret_cast<char*>(&single), 4);
        else if (good) good = wire.skip(type);
        if (!good) return refuse(refusal, "malformed", "column \"" + std::string(column.name) + "\": bad vector");
      }
      if (floats.size() != 4 * static_cast<std::size_t>(column.dim))
        return refuse(refusal, "wrong_dim", "column \"" + std::string(column.name) + "\": " + std::to_string(floats.size() / 4) + " components, expected " + std::to_string(column.dim));
      for (u32 i = 0; i < column.dim; ++i)
        if (!std::isfinite(load<float>(floats.data() + 4 * i)))
          return refuse(refusal, "not_finite", "column \"" + std::string(column.name) + "\": component " + std::to_string(i) + " is not finite");
      cell.vector = keep(std::move(floats)).data();
      return true;
    }
  }
  return false;
}

bool Decoder::join_texts(std::string_view list, CellValue& cell) {
  std::vector<std::string_view> values;
  for (Wire wire(list); !wire.done();) {
    u32 field, type;
    std::string_view value;
    if (!wire.tag(field, type)) return false;
    if (field != 1) {
      if (!wire.skip(type)) return false;
      continue;
    }
    if (type != 2 || !wire.bytes(value) || !valid_utf8(value)) return false;
    if (value.find('\x1f') != std::string_view::npos) return false;
    values.push_back(value);
  }
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  std::string joined;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0) joined.push_back('\x1f');
    joined.append(values[i]);
  }
  cell.text = keep(std::move(joined));
  return true;
}

bool Decoder::read_key(std::string_view bytes, const TableHeader& table, KeyValue& key, Refusal& refusal,
                       const std::string& where) {
  const auto wrong = [&](const std::string& what) { return refuse(refusal, "bad_key", where + ": " + what); };
  u32 part = 0;
  std::string composite;
  for (Wire wire(bytes); !wire.done();) {
    u32 field, type;
    std::string_view part_bytes;
    if (!wire.tag(field, type)) return wrong("malformed");
    if (field != 1) {
      if (!wire.skip(type)) return wrong("malformed");
      continue;
    }
    if (type != 2 || !wire.bytes(part_bytes)) return wrong("malformed");
    if (part >= table.key_parts)
      return wrong("more than " + std::to_string(table.key_parts) + " parts");
    Field kind = Field::absent;
    u64 number = 0;
    std::string_view text;
    for (Wire inner(part_bytes); !inner.done();) {
      u32 inner_field, inner_type;
      bool good = inner.tag(inner_field, inner_type);
      if (good && inner_field == 1) good = inner_type == 0 && inner.varint(number), kind = Field::integer;
      else if (good && inner_field == 2) good = inner_type == 2 && inner.bytes(text), kind = Field::text;
      else if (good) good = inner.skip(inner_type);
      if (!good) return wrong("malformed");
    }
    const bool is_text = table.key_part_is_text[part] != 0;
    if (kind != (is_text ? Field::text : Field::integer))
      return wrong("part " + std::to_string(part) + " is not " + (is_text ? "a string" : "an integer"));
    if (is_text && !valid_utf8(text)) return wrong("part " + std::to_string(part) + " is not UTF-8");
    if (table.key_parts > 1) {
      composite.push_back(is_text ? 4 : 2);
      if (is_text) {
        const u32 size = static_cast<u32>(text.size());
        composite.append(reinterpret_cast<const char*>(&size), 4).append(text);
      } else {
        composite.append(reinterpret_cast<const char*>(&number), 8);
      }
    } else if (is_text) {
      key.bytes = text;
    } else {
      key.integer = true;
      key.number = static_cast<i64>(number);
    }
    ++part;
  }
  if (part == 0 && where == "key") return true;  // an empty key is an absent one
  if (part != table.key_parts)
    return wrong(std::to_string(part) + " parts, expected " + std::to_string(table.key_parts));
  if (table.key_parts > 1) key.bytes = keep(std::move(composite));
  key.present = true;
  return true;
}

}  // namespace nowgraph
