// A row's versions under a reader that is pinned: what the batch in hand does to them it does not see.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "canonical.hpp"
#include "row_event.hpp"
#include "testing.hpp"
#include "view.hpp"
#include "writer.hpp"

using namespace nowgraph;
using testing::RowEventBuilder;

namespace {

constexpr u32 USERS = 0, PAYS = 1;

struct World {
  Arena arena{u64{64} << 20};
  std::unique_ptr<Writer> writer;
  Applied applied;

  World() {
    GraphSpec spec;
    spec.tables.resize(2);
    spec.tables[USERS].name = "users";
    spec.tables[USERS].key_parts_are_text = {false};
    spec.tables[USERS].columns = {{"age", Kind::numerical, false, false, 0}, {"city", Kind::coded, false, false, 0}};
    spec.tables[PAYS].name = "pays";
    spec.tables[PAYS].key_parts_are_text = {false};
    spec.tables[PAYS].has_time = true;
    spec.tables[PAYS].columns = {{"amount", Kind::numerical, false, false, 0}};
    spec.links = {{"user", PAYS, USERS}};
    format_graph(arena, spec, "versions", 1);
    writer = std::make_unique<Writer>(arena);
  }
  void apply(const std::string& event) {
    writer->apply(event, 0, LogPosition{}, false, applied);
    CHECK_EQUAL(applied.rejected.size(), std::size_t{0});
  }
};

std::string pay(Operation operation, i64 key, i64 event_us, i64 known_us, double amount) {
  return RowEventBuilder("pays", operation, key).times(event_us, known_us).number("amount", amount).bytes();
}

// The first payment as a pinned reader sees it at a cut-off: how many of its versions, and its amount; 0 for none.
struct Seen {
  i32 versions;
  double amount;
  bool operator==(const Seen&) const = default;
};
Seen seen(const Reader& reader, const Snapshot& snapshot, i64 cutoff_us) {
  const TableHeader& table = reader.table(PAYS);
  const char* record = reader.row(table, 0);
  const char* amount = reader.cell(snapshot, table, record, 0, cutoff_us);
  return {reader.resolve(snapshot, table, record, cutoff_us).version + 1, amount == nullptr ? 0 : load<double>(amount)};
}

}  // namespace

TEST("a change that comes again, known earlier, is seen as it was by a reader from before, once and earlier by the next") {
  World world;
  world.apply(pay(Operation::insert, 1, 10, 10, 1));
  world.apply(pay(Operation::upsert, 1, 20, 90, 2));
  world.writer->publish();
  Reader first(world.arena), second(world.arena), third(world.arena);
  const Pinned at_90(first);
  world.apply(pay(Operation::upsert, 1, 20, 70, 2));
  world.apply(pay(Operation::upsert, 1, 20, 80, 2));  // known since 70
  CHECK((seen(first, at_90.snapshot, 100) == Seen{2, 2}));
  CHECK((seen(first, at_90.snapshot, 89) == Seen{1, 1}));
  world.writer->publish();
  const Pinned at_70(second);
  world.apply(pay(Operation::upsert, 1, 20, 50, 2));
  world.writer->publish();
  const Pinned at_50(third);
  CHECK((seen(first, at_90.snapshot, 100) == Seen{2, 2}));
  CHECK((seen(first, at_90.snapshot, 89) == Seen{1, 1}));
  CHECK((seen(second, at_70.snapshot, 70) == Seen{2, 2}));
  CHECK((seen(second, at_70.snapshot, 69) == Seen{1, 1}));
  CHECK((seen(third, at_50.snapshot, 50) == Seen{2, 2}));
  CHECK((seen(third, at_50.snapshot, 49) == Seen{1, 1}));
  CHECK((seen(third, at_50.snapshot, 100) == Seen{2, 2}));
  CHECK_EQUAL(world.applied.duplicate, u64{1});
  World other;
  other.apply(pay(Operation::upsert, 1, 20, 50, 2));
  other.apply(pay(Operation::insert, 1, 10, 10, 1));
  CHECK_EQUAL(canonical_hash(world.writer->reader(), world.writer->erasures()),
              canonical_hash(other.writer->reader(), other.writer->erasures()));
}

TEST("an insert that comes again, known earlier, hides no row from a reader from before, however it came first") {
  for (const bool inlined : {true, false}) {
    World world;
    if (!inlined) world.apply(pay(Operation::upsert, 1, 5, 200, 9));  // so that the insert is a version
    world.apply(pay(Operation::insert, 1, 20, 90, 2));
    world.writer->publish();
    Reader first(world.arena), second(world.arena);
    const Pinned before(first);
    for (const i64 known_us : {80, 70}) world.apply(pay(Operation::insert, 1, 20, known_us, 2));
    CHECK((seen(first, before.snapshot, 90) == Seen{1, 2}));
    CHECK((seen(first, before.snapshot, 89) == Seen{0, 0}));
    world.writer->publish();
    const Pinned after(second);
    CHECK((seen(second, after.snapshot, 90) == Seen{1, 2}));
    CHECK((seen(second, after.snapshot, 70) == Seen{1, 2}));
    CHECK((seen(second, after.snapshot, 69) == Seen{0, 0}));
  }
}

TEST("the cells of a row that are asked for by one head are of one state, though the row is erased between two of them") {
  World world;
  world.apply(RowEventBuilder("users", Operation::insert, 7).number("age", 30).bytes());
  world.apply(RowEventBuilder("users", Operation::upsert, 7).times(5, 5).text("city", "Turin").bytes());
  world.writer->publish();
  Reader reader(world.arena);
  const Pinned pinned(reader);
  const TableHeader& table = reader.table(USERS);
  const char* record = reader.row(table, 0);
  const u32 head = Reader::version_head(table, record).load();
  const char* age = reader.cell(pinned.snapshot, table, record, head, 0, INT64_MAX);
  world.apply(RowEventBuilder("users", Operation::erase, 7).times(9, 9).bytes());
  world.writer->publish();
  const char* city = reader.cell(pinned.snapshot, table, record, head, 1, INT64_MAX);
  CHECK(age != nullptr && city != nullptr);
  CHECK_EQUAL(load<double>(age), 30.0);
  CHECK_EQUAL(reader.string_of(*reader.dictionary(reader.columns(table)[1]), load<u32>(city)), "Turin");
  CHECK_EQUAL(reader.first_cell(pinned.snapshot, table, record, head, 0), age);
  CHECK(reader.cell(pinned.snapshot, table, record, 1, INT64_MAX) == nullptr);
}

TEST("a reader that is pinned twice stays where it was first until the last lets go, and sees what is published since") {
  World world;
  Reader reader(world.arena);
  auto first = std::make_unique<Pinned>(reader);
  const u64 epoch = world.arena.oldest_pinned(false);
  world.arena.header().epoch.fetch_add(1);
  world.apply(pay(Operation::insert, 1, 10, 10, 1));
  world.writer->publish();
  auto second = std::make_unique<Pinned>(reader);
  CHECK_EQUAL(first->snapshot.row_limit[PAYS], 0u);
  CHECK_EQUAL(second->snapshot.row_limit[PAYS], 1u);
  first.reset();
  CHECK_EQUAL(world.arena.oldest_pinned(false), epoch);
  second.reset();
  CHECK_EQUAL(world.arena.oldest_pinned(false), UINT64_MAX);
}
