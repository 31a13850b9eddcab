// Writes RowEvents in protobuf's wire format, for tests that know no protobuf.
#pragma once

#include <cstring>
#include <string>
#include <string_view>

#include "layout.hpp"

namespace testing {

using nowgraph::i64;
using nowgraph::u64;
using nowgraph::u8;

class Message {
 public:
  Message& integer(u64 field, i64 value) {
    varint(field << 3);
    varint(static_cast<u64>(value));
    return *this;
  }
  Message& number(u64 field, double value) {
    varint(field << 3 | 1);
    char bytes[8];
    std::memcpy(bytes, &value, 8);
    bytes_.append(bytes, 8);
    return *this;
  }
  Message& text(u64 field, std::string_view value) {
    varint(field << 3 | 2);
    varint(value.size());
    bytes_.append(value);
    return *this;
  }
  Message& message(u64 field, const Message& value) { return text(field, value.bytes_); }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(u64 value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }
  std::string bytes_;
};

// One event under construction: RowEventBuilder("payments", insert, 7, event, known).number("amount", 3).bytes().
class RowEventBuilder {
 public:
  RowEventBuilder(std::string_view table, nowgraph::Operation operation, i64 key) {
    message_.text(2, table).integer(3, static_cast<i64>(operation));
    message_.message(4, Message().message(1, Message().integer(1, key)));
  }
  RowEventBuilder& times(i64 event_time_us, i64 known_time_us) {
    message_.integer(5, event_time_us).integer(6, known_time_us);
    return *this;
  }
  RowEventBuilder& null(std::string_view column) { return cell(Message().text(1, column).integer(2, 0)); }
  RowEventBuilder& number(std::string_view column, double value) { return cell(Message().text(1, column).number(3, value)); }
  RowEventBuilder& integer(std::string_view column, i64 value) { return cell(Message().text(1, column).integer(4, value)); }
  RowEventBuilder& text(std::string_view column, std::string_view value) { return cell(Message().text(1, column).text(5, value)); }
  RowEventBuilder& boolean(std::string_view column, bool value) { return cell(Message().text(1, column).integer(6, value)); }
  const std::string& bytes() const { return message_.bytes(); }

 private:
  RowEventBuilder& cell(const Message& cell) {
    message_.message(7, cell);
    return *this;
  }
  Message message_;
};

}  // namespace testing
