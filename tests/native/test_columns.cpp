// Columns on disk: their file belongs to its arena, is full before an event begins, and a change that came twice takes nothing
// of it. That the graph is the same as in memory is for test_concurrency.cpp, test_image.cpp and the twins in Python.
#include <unistd.h>

#include <filesystem>
#include <string>

#include "canonical.hpp"
#include "row_event.hpp"
#include "testing.hpp"
#include "writer.hpp"

using namespace nowgraph;
using testing::RowEventBuilder;

namespace {

constexpr u64 ARENA_BYTES = u64{64} << 20, COLUMNS_BYTES = u64{64} << 20;

GraphSpec spec(u32 dim) {
  GraphSpec spec;
  TableSpec customers, payments;
  customers.name = "customers";
  customers.key_parts_are_text = {false};
  customers.columns = {{"name", Kind::coded, false, false, 0}};
  payments.name = "payments";
  payments.key_parts_are_text = {false};
  payments.has_time = true;
  payments.columns = {{"amount", Kind::numerical, false, false, 0}, {"vector", Kind::embedding, false, false, dim}};
  customers.columns_on_disk = payments.columns_on_disk = true;
  spec.tables = {customers, payments};
  spec.links = {{"customer_id", 1, 0}};
  return spec;
}

std::string file(const std::string& name) {
  const auto path = std::filesystem::temp_directory_path() / ("nowgraph-" + name + std::to_string(::getpid()));
  std::filesystem::remove(path);
  return path.string();
}

std::string payment(i64 key, Operation operation, i64 time) {
  return RowEventBuilder("payments", operation, key)
      .times(time, time)
      .number("amount", static_cast<double>(time))
      .integer("customer_id", key % 7)
      .bytes();
}

}  // namespace

TEST("a columns' file that is missing, cut off or of another arena is refused, its own is read") {
  const std::string path = file("arena"), columns = file("columns"), others = file("others");
  {
    Arena arena(path, ARENA_BYTES, true), other(ARENA_BYTES);
    arena.add_columns(columns, COLUMNS_BYTES);
    other.add_columns(others, COLUMNS_BYTES);
    format_graph(arena, spec(4), "fingerprint", 1);
    format_graph(other, spec(4), "fingerprint", 1);
    Writer writer(arena);
    Applied applied;
    for (i64 key = 0; key < 100; ++key) writer.apply(payment(key, Operation::insert, key), 0, {}, false, applied);
    for (i64 key = 0; key < 100; key += 3) writer.apply(payment(key, Operation::upsert, 200), 0, {}, false, applied);
    writer.publish();
    Arena mapped(path, 0, false, columns);
    CHECK_EQUAL(canonical_hash(Reader(mapped)), canonical_hash(writer.reader()));
    CHECK_THROWS(Arena(path, 0, false), ArenaRefused);
    CHECK_THROWS(Arena(path, 0, false, columns + ".gone"), ArenaRefused);
    CHECK_THROWS(Arena(path, 0, false, others), ArenaRefused);
  }
  std::filesystem::resize_file(columns, COLUMNS_BYTES - 1);
  CHECK_THROWS(Arena(path, 0, false, columns), ArenaRefused);
  for (const std::string& each : {path, columns, others}) std::filesystem::remove(each);
}

TEST("columns that are full refuse an event before it changes anything; a graph of such tables needs a file") {
  constexpr u32 DIM = 512;  // 16 MiB a chunk
  const std::string columns = file("columns");
  Arena arena(ARENA_BYTES), without(ARENA_BYTES);
  CHECK_THROWS(format_graph(without, spec(DIM), "fingerprint", 1), ArenaRefused);
  arena.add_columns(columns, COLUMNS_BYTES);
  std::filesystem::remove(columns);
  format_graph(arena, spec(DIM), "fingerprint", 1);
  Writer writer(arena);
  Applied applied;
  i64 key = 0;
  u64 used = 0, sequence = 0;
  const auto fill = [&] {
    for (;; ++key) {
      used = arena.header().used.load();
      sequence = writer.sequence();
      writer.apply(payment(key, Operation::insert, key), 0, {}, false, applied);
    }
  };
  CHECK_THROWS(fill(), ArenaFull);
  CHECK(key > i64{CHUNK_ROWS});
  CHECK_EQUAL(arena.header().used.load(), used);
  CHECK_EQUAL(writer.sequence(), sequence);
  CHECK_EQUAL(writer.reader().find(writer.reader().table(1), key), NONE);
}

TEST("a change that came twice takes nothing of the columns, and rows without cells none either") {
  const std::string columns = file("columns");
  Arena arena(ARENA_BYTES);
  arena.add_columns(columns, COLUMNS_BYTES);
  std::filesystem::remove(columns);
  format_graph(arena, spec(4), "fingerprint", 1);
  Writer writer(arena);
  Applied applied;
  const auto all = [&] {
    for (i64 key = 0; key < 50; ++key) writer.apply(payment(key, Operation::insert, key), 0, {}, false, applied);
    for (i64 key = 0; key < 50; ++key) writer.apply(payment(key, Operation::upsert, 100), 0, {}, false, applied);
  };
  all();
  const std::string hash = canonical_hash(writer.reader()), state = writer.save();
  const Memory memory = writer.memory();
  all();
  CHECK_EQUAL(applied.duplicate, u64{100});
  CHECK_EQUAL(canonical_hash(writer.reader()), hash);
  CHECK(writer.save() == state);
  CHECK_EQUAL(writer.memory().columns_bytes, memory.columns_bytes);
  CHECK_EQUAL(memory.tables[1].disk_bytes, u64{51} * 24);  // and the nulls' slot
  CHECK_EQUAL(memory.tables[0].disk_bytes, u64{4});
  CHECK_EQUAL(writer.reader().table(0).row_count.load(), 7u);
}
