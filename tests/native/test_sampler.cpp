// The sampler's own pieces, and a walk over a graph small enough to draw.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "row_event.hpp"
#include "sampler.hpp"
#include "sampler_adjacency.hpp"
#include "spec.hpp"
#include "testing.hpp"
#include "writer.hpp"

using namespace nowgraph;

namespace {

constexpr u32 USERS = 0, PAYS = 1;
constexpr u32 USER_TO_PAYS = 1;  // edge type

// Users 0 and 1; pay i belongs to user i % 2 and happened, and was known, at 100 + i.
struct Graph {
  Arena arena{u64{1} << 28};
  std::unique_ptr<Writer> writer;

  explicit Graph(i64 pays) {
    GraphSpec spec;
    spec.tables.resize(2);
    spec.tables[0].name = "users";
    spec.tables[0].key_parts_are_text = {false};
    spec.tables[1].name = "pays";
    spec.tables[1].key_parts_are_text = {false};
    spec.tables[1].has_time = true;
    spec.links = {{"user", 1, 0}};
    format_graph(arena, spec, "test", 1);
    writer = std::make_unique<Writer>(arena);
    append(0, pays);
    writer->publish();
  }
  void append(i64 low, i64 high) {
    std::vector<i64> key, time, user;
    for (i64 i = low; i < high; ++i) {
      key.push_back(i);
      time.push_back(100 + i);
      user.push_back(i % 2);
    }
    Applied result;
    writer->append(PAYS, key.data(), time.data(), nullptr, {user.data()}, key.size(), result);
  }
};

std::unique_ptr<Sampler> sampler(Graph& graph, const std::vector<i32>& hops, Strategy strategy, u32 node_limit = 1000) {
  std::vector<i32> numbers;
  for (const i32 number : hops) numbers.insert(numbers.end(), 2, number);
  const std::vector<u8> strategies(numbers.size(), static_cast<u8>(strategy));
  const std::vector<double> half_lives(numbers.size(), 8.0);
  return std::make_unique<Sampler>(graph.arena, static_cast<u32>(hops.size()), node_limit, numbers.data(),
                                   strategies.data(), half_lives.data(), 7);
}

// Payments of users of the graph, as (key, time, user).
using Payments = std::vector<std::array<i64, 3>>;
SessionEvents sessions_of(std::vector<std::string>& kept, const std::vector<Payments>& sessions) {
  SessionEvents found;
  for (const Payments& session : sessions)
    for (const auto& [key, time, user] : session) {
      testing::RowEventBuilder event("pays", Operation::insert, key);
      kept.push_back(event.times(time, time).integer("user", user).bytes());
    }
  found.events.assign(kept.begin(), kept.end());
  for (const Payments& session : sessions) found.offset.push_back(found.offset.back() + session.size());
  return found;
}

std::vector<i64> rows_of(const Sample& sample) { return {sample.row.data(), sample.row.data() + sample.row.size()}; }

}  // namespace

TEST("numbers below a bound come equally often") {
  Random random;
  random.restart(1, 2);
  std::vector<u32> counts(7);
  for (u32 i = 0; i < 70'000; ++i) ++counts[random.below(7)];
  double statistic = 0;
  for (const u32 count : counts) statistic += (count - 10'000.0) * (count - 10'000.0) / 10'000.0;
  CHECK(statistic < 27.9);  // chi-square of 6 degrees of freedom, one in ten thousand
}

TEST("streams of one seed differ, and each repeats itself") {
  Random one, two, other;
  one.restart(5, 0);
  two.restart(5, 0);
  other.restart(5, 1);
  u32 same = 0;
  for (u32 i = 0; i < 100; ++i) {
    const u64 next = one.next();
    CHECK_EQUAL(next, two.next());
    same += next == other.next();
  }
  CHECK_EQUAL(same, 0u);
}

TEST("a number set holds what was put in since it was cleared, also when it grows") {
  NumberSet set;
  for (u32 round = 0; round < 3; ++round) {
    set.clear(4);
    for (u32 number = 0; number < 1'000; number += 3) CHECK(set.insert(number));
    for (u32 number = 0; number < 1'000; ++number) CHECK_EQUAL(set.contains(number), number % 3 == 0);
    CHECK(!set.insert(999));
    CHECK_EQUAL(set.size(), 334u);
  }
}

TEST("uniform draws are distinct and in range, and remembered") {
  Random random;
  random.restart(3, 0);
  NumberSet tried;
  for (u32 size = 2; size < 60; ++size)
    for (u32 k = 1; k < size; ++k) {
      std::set<u32> drawn;
      draw_uniform(random, tried, size, k, [&](u32 position) { drawn.insert(position); });
      CHECK_EQUAL(drawn.size(), std::size_t{k});
      CHECK(*drawn.rbegin() < size);
      CHECK_EQUAL(tried.size(), k);  // which are they that were drawn
      for (const u32 position : drawn) CHECK(tried.contains(position));
    }
}

TEST("recency draws are distinct and in range by either method, for any half-life") {
  Random random;
  random.restart(4, 0);
  NumberSet tried;
  for (const double half_life : {1e-3, 0.7, 5.0, 1e3, 1e9})
    for (const u32 size : {2u, 9u, 200u})
      for (u32 k = 1; k < size; k += 1 + size / 7) {
        std::set<u32> drawn;
        draw_recency(random, tried, size, k, half_life, [&](u32 position) { drawn.insert(position); });
        CHECK_EQUAL(drawn.size(), std::size_t{k});
        CHECK(*drawn.rbegin() < size);
      }
}

TEST("rows seen are found again by table and row, also after growing and after many seeds") {
  SeenRows seen;
  std::vector<u8> tables(5'000);
  for (u32 node = 0; node < tables.size(); ++node) tables[node] = node % 3;
  for (u32 seed = 0; seed < 5'000; ++seed) {  // beyond the tag's 12 bits
    seen.clear();
    const u32 nodes = seed % 1'000 == 0 ? 5'000 : 4;
    for (u32 node = 0; node < nodes; ++node) {
      seen.reserve(1, tables.data());
      CHECK_EQUAL(seen.find(tables[node], node / 3, tables.data()), NONE);
      CHECK_EQUAL(seen.find_or_add(tables[node], node / 3, node, tables.data()), node);
    }
    for (u32 node = 0; node < nodes; ++node)
      CHECK_EQUAL(seen.find_or_add(tables[node], node / 3, nodes, tables.data()), node);
  }
}

TEST("a walk takes the newest before the cut-off and never the seed") {
  Graph graph(10);
  const auto walker = sampler(graph, {1, 3}, Strategy::most_recent);
  const i64 row = 8, cutoff = 107;  // itself at 108
  const auto sample = walker->sample_rows(PAYS, &row, &cutoff, 1, false, 0);
  CHECK((rows_of(*sample) == std::vector<i64>{8, 0, 6, 4, 2}));
  const i64 earlier = 105;
  const auto before = walker->sample_rows(PAYS, &row, &earlier, 1, false, 0);
  CHECK((rows_of(*before) == std::vector<i64>{8, 0, 4, 2, 0}));
}

TEST("rows that are applied but not published are in no sample of any strategy") {
  Graph graph(40);
  graph.append(40, 4'000);  // no publish: the lists already hold them
  for (const Strategy strategy : {Strategy::most_recent, Strategy::uniform, Strategy::recency_weighted}) {
    const auto walker = sampler(graph, {1, 12}, strategy);
    for (u64 request = 0; request < 50; ++request) {
      const i64 row = 39, cutoff = 1'000'000;
      const auto sample = walker->sample_rows(PAYS, &row, &cutoff, 1, false, request);
      CHECK_EQUAL(sample->row.size(), std::size_t{14});
      CHECK(*std::max_element(sample->row.data(), sample->row.data() + 14) < 40);
    }
  }
}

TEST("a session stands before what the graph holds and leaves out what it shows") {
  Graph graph(10);
  const auto walker = sampler(graph, {4, 2}, Strategy::most_recent);
  const std::vector<i64> users{0, -1, 1}, cutoffs{200, 200, 105}, asked{200, 200, 107};
  std::vector<std::string> kept;
  const SessionEvents sessions =
      sessions_of(kept, {{{8, 150, 0}, {50, 120, 0}, {51, 130, 0}}, {{3, 90, 1}}, {{7, 107, 1}}});
  for (u64 request = 0; request < 3; ++request) {  // the same memory again
    const auto sample =
        walker->sample_sessions(USERS, users.data(), sessions, USER_TO_PAYS, cutoffs.data(), asked.data(), 3, request);
    CHECK((rows_of(*sample) == std::vector<i64>{0, -1, -1, 8, 6, -1, -1, 1, -1, 5, 3, 1}));
    const std::vector<i64> times(sample->event_time_us.data() + 1, sample->event_time_us.data() + 5);
    CHECK((times == std::vector<i64>{130, 120, 108, 106}));
    const auto pays = std::count(sample->table.data(), sample->table.data() + sample->table.size(), PAYS);
    CHECK_EQUAL(static_cast<std::size_t>(pays), sample->row.size() - 3);
    CHECK(sample->gathered[PAYS].node.size() == 0);  // no columns: who asks finds its nodes by their table
    walker->pool()->give_back(walker->sample_rows(PAYS, users.data(), cutoffs.data(), 1, false, request));
  }
}

TEST("a session with a bad event is refused whole, and the next one is taken") {
  Graph graph(10);
  const auto walker = sampler(graph, {4, 2}, Strategy::uniform);
  const std::vector<i64> users{0, 1}, asked{200, 200};
  for (const std::array<i64, 3>& bad : {std::array<i64, 3>{60, 201, 1}, std::array<i64, 3>{60, 150, 0}}) {
    std::vector<std::string> kept;
    const SessionEvents sessions = sessions_of(kept, {{{50, 120, 0}}, {{51, 150, 1}, bad}});
    std::string said;
    try {
      walker->sample_sessions(USERS, users.data(), sessions, USER_TO_PAYS, asked.data(), asked.data(), 2, 0);
    } catch (const SessionRefused& refused) {
      said = refused.what();
    }
    CHECK(said.starts_with("event 1 of session 1 is no row of it: "));
    const auto sample =
        walker->sample_sessions(USERS, users.data(), sessions, USER_TO_PAYS, asked.data(), asked.data(), 1, 0);
    CHECK_EQUAL(sample->row.size(), std::size_t{5});
  }
}

TEST("a sample that is given back is written into again") {
  Graph graph(10);
  const auto walker = sampler(graph, {1, 3}, Strategy::most_recent);
  const i64 row = 8, cutoff = 107;
  auto sample = walker->sample_rows(PAYS, &row, &cutoff, 1, false, 0);
  const Sample* address = sample.get();
  walker->pool()->give_back(std::move(sample));
  sample = walker->sample_rows(PAYS, &row, &cutoff, 1, false, 0);
  CHECK(sample.get() == address);
  CHECK((rows_of(*sample) == std::vector<i64>{8, 0, 6, 4, 2}));
}

TEST("the lists alone give the same neighbors as a list by hand") {
  constexpr u32 NODES = 50, EVENTS = 5'000;
  AdjacencyBench lists(NODES, u64{1} << 27);
  Random random;
  random.restart(9, 0);
  std::vector<u32> source, target, tick;
  std::map<u32, std::vector<u32>> newest;  // node -> neighbors, oldest first
  for (u32 i = 0; i < EVENTS; ++i) {
    source.push_back(random.below(4) == 0 ? random.below(NODES) : 0);  // node 0 is a hub of several blocks
    target.push_back(1 + random.below(NODES - 1));
    tick.push_back(i);
    newest[source[i]].push_back(target[i]);
    newest[target[i]].push_back(source[i]);
  }
  lists.ingest(source.data(), target.data(), tick.data(), EVENTS);
  CHECK_EQUAL(lists.entries(), u64{2 * EVENTS});
  for (u32 node = 0; node < NODES; ++node) {
    std::set<u32> expected{node};
    const auto& all = newest[node];
    for (u32 i = 0; i < std::min<u32>(30, all.size()); ++i) expected.insert(all[all.size() - 1 - i]);
    const u32 cutoff = EVENTS;
    CHECK_EQUAL(lists.sample(&node, &cutoff, 1, {30}, 0).first, u64{expected.size()});
  }
}
