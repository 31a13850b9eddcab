// Integer keys: those that stand close together are found by one load, the others in a map, and nobody can tell.
#include <algorithm>
#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "canonical.hpp"
#include "testing.hpp"
#include "writer.hpp"

using namespace nowgraph;

namespace {

constexpr u64 ARENA_BYTES = u64{128} << 20;  // so small that far keys soon get no page
constexpr u32 PARENTS = 0, ROWS = 1;

GraphSpec spec_with(i64 retention_age_us) {
  GraphSpec spec;
  spec.tables.resize(2);
  spec.tables[PARENTS].name = "parents";
  spec.tables[PARENTS].key_parts_are_text = {false};
  spec.tables[ROWS].name = "rows";
  spec.tables[ROWS].key_parts_are_text = {false};
  spec.tables[ROWS].has_time = true;
  spec.tables[ROWS].retention_age_us = retention_age_us;
  spec.links = {{"parent", ROWS, PARENTS}};
  return spec;
}

// Counters, a second run of them far off, keys all over 32 bits, all over 64, negative ones and the ends of each kind.
std::vector<i64> mixed_keys(u32 count, u32 seed) {
  std::mt19937_64 random(seed);
  std::vector<i64> keys{INT64_MIN, -1, DENSE_KEY_MAX, DENSE_KEY_MAX + 1, INT64_MAX};
  for (u32 i = 0; i < count; ++i) {
    keys.push_back(i);
    keys.push_back((i64{3} << 30) + i);
    keys.push_back(static_cast<i64>((i64{1} << 31) + (random() >> 33)));
    keys.push_back(static_cast<i64>(random()));
  }
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  std::shuffle(keys.begin(), keys.end(), random);
  return keys;
}

Applied append(Writer& writer, const std::vector<i64>& keys, u64 low, u64 high) {
  Applied result;
  std::vector<i64> times(high - low);
  for (u64 i = low; i < high; ++i) times[i - low] = static_cast<i64>(1000 + i);
  const std::vector<const i64*> parents{keys.data() + low};  // each row's parent has the row's key
  writer.append(ROWS, keys.data() + low, times.data(), nullptr, parents, high - low, result);
  writer.publish();
  return result;
}

}  // namespace

TEST("every key finds its own row, wherever it stands, and no other does") {
  Arena arena(ARENA_BYTES);
  format_graph(arena, spec_with(INT64_MAX), "keys", 1);
  Writer writer(arena);
  const std::vector<i64> keys = mixed_keys(20'000, 1);
  CHECK_EQUAL(append(writer, keys, 0, keys.size()).applied, keys.size());
  const Reader& reader = writer.reader();
  u64 dense = 0;
  for (const u32 table : {PARENTS, ROWS}) {
    const TableHeader& header = reader.table(table);
    CHECK_EQUAL(header.row_count.load(), keys.size());
    CHECK_EQUAL(header.mapped.load(), 1u);
    for (u32 row = 0; row < keys.size(); ++row) {
      CHECK_EQUAL(reader.find(header, keys[row]), row);
      dense += reader.dense_pages(header).row(keys[row]) == row;
    }
  }
  CHECK(dense >= 20'000);
  std::mt19937_64 random(2);
  std::vector<i64> sorted = keys;
  std::sort(sorted.begin(), sorted.end());
  for (u32 i = 0; i < 100'000; ++i) {
    const i64 key = static_cast<i64>(random() >> (random() % 64));
    if (!std::binary_search(sorted.begin(), sorted.end(), key)) CHECK_EQUAL(reader.find(reader.table(ROWS), key), NONE);
  }
  CHECK_EQUAL(append(writer, keys, 0, keys.size()).duplicate, keys.size());
}

TEST("pages never take more than their share, whatever the keys") {
  Arena arena(ARENA_BYTES);
  format_graph(arena, spec_with(INT64_MAX), "keys", 1);
  Writer writer(arena);
  std::mt19937_64 random(3);
  std::vector<i64> keys;
  for (u32 i = 0; i < 50'000; ++i) keys.push_back(static_cast<i64>(random() >> 32));
  append(writer, keys, 0, keys.size());
  for (const TableMemory& table : writer.memory().tables)
    CHECK(table.key_map_bytes <= ARENA_BYTES / DENSE_ARENA_SHARE + (DENSE_BYTES_PER_ROW + 64) * table.rows);
}

TEST("a key that retention forgot is gone, dense or mapped, and may come again") {
  Arena arena(ARENA_BYTES);
  format_graph(arena, spec_with(500), "keys", 1);
  Writer writer(arena);
  const std::vector<i64> keys = mixed_keys(2'000, 4);
  append(writer, keys, 0, keys.size());
  const TableHeader& table = writer.reader().table(ROWS);
  const u64 kept = 501;  // at the bound a row stays
  CHECK_EQUAL(writer.evict().rows, keys.size() - kept);
  for (u64 i = 0; i < keys.size(); ++i)
    CHECK_EQUAL(writer.reader().find(table, keys[i]), i < keys.size() - kept ? NONE : static_cast<u32>(i));
  CHECK_EQUAL(append(writer, keys, 0, keys.size()).applied, keys.size() - kept);
  for (u64 i = 0; i < keys.size() - kept; ++i)
    CHECK_EQUAL(writer.reader().find(table, keys[i]), static_cast<u32>(keys.size() + i));
}

TEST("the order in which keys come decides where they lie and nothing else") {
  const std::vector<i64> keys = mixed_keys(3'000, 5);
  std::string hash[2];
  for (u32 turn = 0; turn < 2; ++turn) {
    Arena arena(ARENA_BYTES);
    format_graph(arena, spec_with(INT64_MAX), "keys", 1);
    Writer writer(arena);
    std::vector<i64> ordered = keys;
    std::vector<i64> times(keys.size(), 7);
    if (turn == 1) std::sort(ordered.begin(), ordered.end());
    Applied result;
    writer.append(ROWS, ordered.data(), times.data(), nullptr, {ordered.data()}, ordered.size(), result);
    hash[turn] = canonical_hash(writer.reader());
  }
  CHECK_EQUAL(hash[0], hash[1]);
}

TEST("readers find every published key while pages, directories and maps grow under them") {
  Arena arena(ARENA_BYTES);
  format_graph(arena, spec_with(INT64_MAX), "keys", 1);
  Writer writer(arena);
  const std::vector<i64> keys = mixed_keys(8'000, 6);
  std::atomic<bool> done{false};
  std::atomic<u64> found{0};
  std::vector<std::thread> readers;
  for (u32 seed = 0; seed < 2; ++seed)
    readers.emplace_back([&, seed] {
      Reader reader(arena);
      std::mt19937_64 random(seed);
      while (!done.load(std::memory_order_acquire)) {
        const Snapshot snapshot = reader.pin();
        for (const u32 table : {PARENTS, ROWS}) {
          const u32 limit = snapshot.row_limit[table];
          for (u32 i = 0; i < 64 && limit > 0; ++i) {
            const u32 row = static_cast<u32>(random() % limit);
            CHECK_EQUAL(reader.find(reader.table(table), load<i64>(reader.key(reader.table(table), row))), row);
            ++found;
          }
        }
        reader.unpin();
      }
    });
  for (u64 low = 0; low < keys.size(); low += 100) append(writer, keys, low, std::min<u64>(low + 100, keys.size()));
  done.store(true, std::memory_order_release);
  for (std::thread& reader : readers) reader.join();
  CHECK(found.load() > 0);
}
