#include "canonical.hpp"

#include <cstdio>
#include <vector>

#include "content.hpp"

namespace nowgraph {

namespace {

// A sum does not know in which order rows were added to it.
struct Sum {
  u64 low = 0;
  u64 high = 0;
  void add(u64 hash) {
    low += mix64(hash);
    high += mix64(hash ^ 0x9E3779B97F4A7C15ull);
  }
};

void add_row(const Reader& reader, const TableHeader& table, u32 row, std::vector<Reader::VersionKey>& versions,
             Sum& sum) {
  const char* record = reader.row(table, row);
  if (is_dropped(Reader::version_head(table, record).load(std::memory_order_acquire))) return;
  reader.versions(table, record, UINT64_MAX, versions);
  if (versions.empty()) return;  // bare: it is told by what names it
  ContentHash hash;
  hash.text(table.name);
  hash_key(reader, table, row, hash);
  for (const auto& version : versions) {
    hash.number<i64>(version.event_time_us);
    hash.number<i64>(version.known_time_us);
    hash.number<u8>(static_cast<u8>(version.operation));
    hash.number<u64>(version.unit == NO_VERSION ? reader.inline_content(table, record) : version.content);
  }
  sum.add(hash.value());
}

void add_list(const Reader& reader, const LinkHeader& link, u32 parent_row, Sum& sum) {
  const TableHeader& parent = reader.table(link.parent);
  const TableHeader& child = reader.table(link.child);
  const List list = reader.list(Reader::list_word_of(reader.row(parent, parent_row), link.word_in_parent));
  ContentHash hash;
  hash.text(link.name);
  hash_key(reader, parent, parent_row, hash);
  bool any = false;
  for (u32 i = 0; i < list.count; ++i) {
    const Entry& entry = reader.at(list, i);
    if (!entry_holds(reader, link, parent_row, entry)) continue;
    any = true;
    hash.number<i64>(reader.open_time_us(child, entry));
    hash_key(reader, child, reader.child(entry), hash);
  }
  if (any) sum.add(hash.value());
}

}  // namespace

bool entry_holds(const Reader& reader, const LinkHeader& link, u32 parent_row, const Entry& entry) {
  const TableHeader& child = reader.table(link.child);
  const u32 row = reader.child(entry);
  const char* record = reader.row(child, row);
  const u32 head = Reader::version_head(child, record).load(std::memory_order_acquire);
  if (is_dropped(head)) return false;
  if ((head & STRUCTURAL) == 0) return true;
  std::vector<Reader::Interval> intervals;
  reader.intervals(child, record, link.index_in_child, UINT64_MAX, intervals);
  const i64 open = reader.open_time_us(child, entry);
  for (const auto& interval : intervals)
    if (interval.parent == parent_row && interval.open_time_us == open) return true;
  return false;
}

std::string canonical_hash(const Reader& reader, const Erasures& erasures) {
  Sum sum;
  std::vector<Reader::VersionKey> versions;
  const GraphHeader& graph = reader.graph();
  for (u32 t = 0; t < graph.table_count; ++t) {
    const TableHeader& table = reader.table(t);
    for (u32 row = 0; row < table.row_count.load(std::memory_order_acquire); ++row) {
      reader.ask_cells_from(table, row);
      add_row(reader, table, row, versions, sum);
    }
  }
  for (u32 l = 0; l < graph.link_count; ++l) {
    const LinkHeader& link = reader.link(l);
    const u32 rows = reader.table(link.parent).row_count.load(std::memory_order_acquire);
    for (u32 row = 0; row < rows; ++row) add_list(reader, link, row, sum);
  }
  erasures.each([&](const KeyDigest& digest, const ErasedKey& key) {
    if (key.asked_us == NOT_ERASED_US) return;  // follows from what asked, and from rows that retention may have dropped
    ContentHash hash;
    hash.number(digest);
    hash.number(key.asked_us);
    sum.add(hash.value());
  });
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(sum.high),
                static_cast<unsigned long long>(sum.low));
  return text;
}

}  // namespace nowgraph
