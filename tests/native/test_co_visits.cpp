// The co-visit walk over graphs small enough to draw, and while a writer moves, deletes and evicts what it walks over.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "co_visits.hpp"
#include "row_event.hpp"
#include "spec.hpp"
#include "testing.hpp"
#include "writer.hpp"

using namespace nowgraph;
using testing::RowEventBuilder;

namespace {

constexpr u32 USERS = 0, BUYS = 2;
constexpr u32 USER_LINK = 0, ITEM_LINK = 1;
constexpr CoVisitPlan PLAN{256, 20, 1.0};

GraphSpec shop_spec(u32 degree) {
  GraphSpec spec;
  spec.tables.resize(3);
  const char* const names[] = {"users", "items", "buys"};
  for (u32 table = 0; table < 3; ++table) {
    spec.tables[table].name = names[table];
    spec.tables[table].key_parts_are_text = {false};
  }
  spec.tables[BUYS].has_time = true;
  spec.tables[BUYS].retention_degree = degree;
  spec.links = {{"user", BUYS, USERS}, {"item", BUYS, 1}};
  return spec;
}

// Rows of users and items are numbered as they are first named.
struct Shop {
  Arena arena{u64{1} << 28};
  std::unique_ptr<Writer> writer;

  Shop() {
    format_graph(arena, shop_spec(NONE), "test", 1);
    writer = std::make_unique<Writer>(arena);
  }
  struct Buy {
    i64 user, item, time;
  };
  void append(const std::vector<Buy>& buys, bool publish = true) {
    std::vector<i64> key, time, user, item;
    for (const Buy& buy : buys) {
      key.push_back(next_key_++);
      time.push_back(buy.time);
      user.push_back(buy.user);
      item.push_back(buy.item);
    }
    Applied result;
    writer->append(BUYS, key.data(), time.data(), nullptr, {user.data(), item.data()}, key.size(), result);
    if (publish) writer->publish();
  }

 private:
  i64 next_key_ = 0;
};

std::vector<i64> values(const Column<i64>& column) { return {column.data(), column.data() + column.size()}; }

// Other item -> forward, backward, same: of one item, asked for nobody.
std::map<i64, std::vector<float>> around(CoVisitWalk& walk, i64 item, i64 cutoff_time_us, const CoVisitPlan& plan = PLAN) {
  const i64 offset[2] = {0, 1}, user = -1;
  std::unique_ptr<CoVisits> result = walk.walk(offset, &item, 1, &user, &cutoff_time_us, 1, plan);
  const CoVisits& found = *result;
  std::map<i64, std::vector<float>> weights;
  for (std::size_t pair = 0; pair < found.item.size(); ++pair)
    weights[found.item[pair]] = {found.weight.data() + 3 * pair, found.weight.data() + 3 * pair + 3};
  walk.pool()->give_back(std::move(result));
  return weights;
}

}  // namespace

TEST("what was taken after, before and at the same time is told apart, and nothing is taken after the cut-off") {
  Shop shop;
  shop.append({{0, 0, 10}, {0, 1, 20}, {0, 2, 20}, {0, 3, 30}});
  CoVisitWalk walk(shop.arena, USER_LINK, ITEM_LINK);
  CHECK((around(walk, 1, 30) == std::map<i64, std::vector<float>>{{0, {0, 1, 0}}, {2, {0, 0, 1}}, {3, {1, 0, 0}}}));
  CHECK((around(walk, 1, 29) == std::map<i64, std::vector<float>>{{0, {0, 1, 0}}, {2, {0, 0, 1}}}));
  CHECK((around(walk, 0, 30, {256, 2, 1.0}) == std::map<i64, std::vector<float>>{{1, {1, 0, 0}}, {2, {0.5, 0, 0}}}));
  CHECK(around(walk, 1, 19).empty());
}

TEST("rows that are applied but not published are in no history, beside no item and in no degree") {
  Shop shop;
  shop.append({{0, 0, 10}, {0, 1, 20}, {1, 0, 15}});
  std::vector<Shop::Buy> more;
  for (i64 i = 0; i < 3'000; ++i) more.push_back({i % 2, i % 3 == 0 ? 0 : 2, 5 + i % 40});  // among the others, and after
  shop.append(more, false);
  CoVisitWalk walk(shop.arena, USER_LINK, ITEM_LINK);
  const i64 users[2] = {0, 1}, items[2] = {0, 1}, cutoffs[2] = {1'000, 1'000};
  CHECK((values(walk.histories(users, cutoffs, 2, 50).interaction) == std::vector<i64>{1, 0, 2}));
  CHECK((around(walk, 0, 1'000) == std::map<i64, std::vector<float>>{{1, {1, 0, 0}}}));
  const Degrees degrees = walk.degrees(items, cutoffs, 2);
  CHECK((values(degrees.count) == std::vector<i64>{2, 1}));
  CHECK((values(degrees.first_us) == std::vector<i64>{10, 20}));
  CHECK((values(degrees.last_us) == std::vector<i64>{15, 20}));
}

TEST("lists of several blocks are walked from their newest visible end") {
  Shop shop;
  std::vector<Shop::Buy> buys;
  for (i64 i = 0; i < 5'000; ++i) buys.push_back({0, i % 2, 10 * i});
  shop.append(buys);
  CoVisitWalk walk(shop.arena, USER_LINK, ITEM_LINK);
  const i64 item = 0, cutoff = 30'000;  // items 0 and 1 in turn, the last visible is a 0
  CHECK_EQUAL(walk.degrees(&item, &cutoff, 1).count[0], 1'501);
  CHECK((around(walk, 0, cutoff, {100, 1, 1.0}) == std::map<i64, std::vector<float>>{{1, {99, 100, 0}}}));
  CHECK((around(walk, 1, cutoff, {100, 1, 1.0}) == std::map<i64, std::vector<float>>{{0, {100, 100, 0}}}));
}

TEST("so many at one time are cut short on each side, and the rest of the walk goes on") {
  Shop shop;
  std::vector<Shop::Buy> buys;
  for (i64 i = 0; i < 2 * SAME_TIME_MAX + 101; ++i) buys.push_back({0, i, 10});
  shop.append(buys);
  CoVisitWalk walk(shop.arena, USER_LINK, ITEM_LINK);
  CHECK_EQUAL(around(walk, SAME_TIME_MAX + 50, 10).size(), std::size_t{2 * SAME_TIME_MAX});
  CHECK_EQUAL(around(walk, 0, 10).size(), std::size_t{SAME_TIME_MAX});
}

TEST("rows, links and offsets that are not there are refused") {
  Shop shop;
  shop.append({{0, 0, 10}});
  CHECK_THROWS(CoVisitWalk(shop.arena, USER_LINK, USER_LINK), std::invalid_argument);
  CHECK_THROWS(CoVisitWalk(shop.arena, USER_LINK, 2), std::invalid_argument);
  CoVisitWalk walk(shop.arena, USER_LINK, ITEM_LINK);
  const i64 zero[1] = {0}, one[1] = {1}, offsets[2] = {0, 2};
  CHECK_THROWS(walk.histories(one, zero, 1, 5), std::out_of_range);
  CHECK_THROWS(walk.degrees(one, zero, 1), std::out_of_range);
  CHECK_THROWS(walk.walk(offsets, zero, 1, zero, zero, 1, PLAN), std::invalid_argument);
}

// ---- under a writer -------------------------------------------------------------------------------------------------

namespace {

constexpr i64 MIXED_USERS = 20, PAIR_USERS = 20;  // the latter take items 0 and 1 together, and nothing else
constexpr i64 MIXED_ITEMS = 30;                    // from item 2 on
constexpr u32 PAIR_ROW = 1;  // of item 0, and item 1 follows: the first event names another item
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr u32 BATCHES = 200;
#else
constexpr u32 BATCHES = 1'000;
#endif

std::string buy(Operation operation, i64 key, i64 time, i64 user, i64 item) {
  RowEventBuilder event("buys", operation, key);
  event.times(time, time);
  if (user >= 0) event.integer("user", user);
  if (item >= 0) event.integer("item", item);
  return event.bytes();
}

std::vector<std::string> batch(std::mt19937_64& random, i64& key) {
  const auto below = [&](i64 n) { return static_cast<i64>(random() % static_cast<u64>(n)); };
  std::vector<std::string> events;
  for (u32 i = 0; i < 8; ++i) {
    ++key;
    const i64 late = below(4) == 0 ? below(200) : 0;
    events.push_back(buy(Operation::insert, key, std::max<i64>(key - late, 1), below(MIXED_USERS), 2 + below(MIXED_ITEMS)));
    const i64 paired = MIXED_USERS + below(PAIR_USERS);
    events.push_back(buy(Operation::insert, -2 * key, key, paired, 0));
    events.push_back(buy(Operation::insert, -2 * key - 1, key, paired, 1));
    const i64 old = 1 + below(key);
    if (i % 4 == 0) events.push_back(buy(Operation::upsert, old, key, below(MIXED_USERS), -1));
    if (i % 4 == 1) events.push_back(buy(Operation::upsert, old, key, -1, 2 + below(MIXED_ITEMS)));
    if (i % 4 == 2) events.push_back(buy(Operation::remove, old, key, -1, -1));
  }
  return events;
}

// Whatever the moment: whole pairs, nothing late, every pair's items at the same time and as often as they were visited.
// Returns how many of those it met.
u64 ask(CoVisitWalk& walk, Reader& reader, std::mt19937_64& random, bool evicting) {
  const Snapshot snapshot = reader.pin();
  const u32 users = snapshot.row_limit[USERS], items = snapshot.row_limit[1];
  reader.unpin();
  if (users == 0) return 0;
  const i64 user[2] = {static_cast<i64>(random() % users), -1};
  const i64 newest = static_cast<i64>(snapshot.row_limit[BUYS]);
  const i64 cutoff[2] = {static_cast<i64>(random() % 3 == 0 ? INT64_MAX : random() % newest), INT64_MAX};
  const Histories found = walk.histories(user, cutoff, 1, 1'000);
  for (std::size_t i = 0; i < found.item.size(); ++i) {
    CHECK(found.visible_time_us[i] <= cutoff[0]);
    CHECK(i == 0 || found.visible_time_us[i] <= found.visible_time_us[i - 1]);
  }
  std::vector<i64> asked = values(found.item);
  const i64 offset[3] = {0, static_cast<i64>(asked.size()), static_cast<i64>(asked.size() + items)};
  for (i64 item = 0; item < items; ++item) asked.push_back(item);
  const auto result = walk.walk(offset, asked.data(), asked.size(), user, cutoff, 2, {64, 5, 0.5});
  const CoVisits& around = *result;
  const i64 items_now = reader.pin().row_limit[1];  // the walk may know items that came after the question was made
  reader.unpin();
  for (std::size_t pair = 0; pair < around.item.size(); ++pair) {
    CHECK(around.item[pair] != asked[around.history[pair]] && around.item[pair] < items_now);
    for (u32 kind = 0; kind < 3; ++kind) CHECK(std::isfinite(around.weight[3 * pair + kind]));
  }
  std::vector<i64> all(items), end(items, INT64_MAX);
  for (u32 item = 0; item < items; ++item) all[item] = item;
  const Degrees degrees = walk.degrees(all.data(), end.data(), items);
  if (evicting) return around.item.size();
  CHECK_EQUAL(degrees.count[PAIR_ROW], degrees.count[PAIR_ROW + 1]);
  u64 met = 0;
  for (std::size_t pair = 0; pair < around.item.size(); ++pair) {
    if (asked[around.history[pair]] != PAIR_ROW || around.item[pair] != PAIR_ROW + 1) continue;
    CHECK_EQUAL(static_cast<i64>(around.weight[3 * pair + 2]), around.visits[around.history[pair]]);
    ++met;
  }
  return met;
}

void run(u32 degree) {
  Arena arena(u64{1} << 29);
  format_graph(arena, shop_spec(degree), "test", 1);
  Writer writer(arena);
  std::atomic<bool> done{false};
  std::atomic<u64> met{0};
  std::vector<std::thread> readers;
  for (u32 reader = 0; reader < 2; ++reader)
    readers.emplace_back([&, reader] {
      CoVisitWalk walk(arena, USER_LINK, ITEM_LINK);
      Reader own(arena);
      std::mt19937_64 random(reader);
      do met += ask(walk, own, random, degree != NONE); while (!done.load(std::memory_order_acquire));
      met += ask(walk, own, random, degree != NONE);
    });
  std::mt19937_64 random(7);
  i64 key = 0;
  for (u32 i = 0; i < BATCHES; ++i) {
    Applied applied;
    u64 place = 0;
    for (const std::string& event : batch(random, key)) writer.apply(event, place++, LogPosition{}, true, applied);
    CHECK_EQUAL(applied.rejected.size(), std::size_t{0});
    writer.publish();
    if (degree != NONE && i % 7 == 0) {
      writer.evict();
      writer.publish();
    }
  }
  done.store(true, std::memory_order_release);
  for (std::thread& reader : readers) reader.join();
  CHECK(met.load() > 0);
}

}  // namespace

TEST("walks beside a writer that moves and deletes see whole batches") { run(NONE); }

TEST("walks beside a writer that evicts read nothing that is gone") { run(40); }
