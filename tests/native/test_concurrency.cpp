// The concurrency contract: one writer that inserts, patches, moves, deletes and evicts; readers that sample all the
// while. Run plain, under ThreadSanitizer and under AddressSanitizer with the undefined behaviour one.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "canonical.hpp"
#include "row_event.hpp"
#include "sampler.hpp"
#include "testing.hpp"
#include "view.hpp"
#include "writer.hpp"

using namespace nowgraph;
using testing::RowEventBuilder;

namespace {

constexpr u64 ARENA_BYTES = u64{1} << 30;
constexpr u32 CUSTOMERS = 0, PAYMENTS = 1;
constexpr u32 TO_PAYMENTS = 1;  // edge type
constexpr i64 START_US = 1'700'000'000'000'000, SECOND_US = 1'000'000, HOUR_US = 3600 * SECOND_US;
constexpr i64 MIXED_CUSTOMERS = 40, PAIR_CUSTOMERS = 20;  // the latter only ever get payments two at a time
constexpr double PAIR_AMOUNT = -1;
constexpr u32 BATCH_PAIRS = 12;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr u32 BATCHES = 400;  // a sanitizer sees more in each
#else
constexpr u32 BATCHES = 3000;
#endif

GraphSpec payments_spec(u32 degree) {
  GraphSpec spec;
  TableSpec customers;
  customers.name = "customers";
  customers.key_parts_are_text = {false};
  TableSpec payments;
  payments.name = "payments";
  payments.key_parts_are_text = {false};
  payments.has_time = true;
  payments.retention_degree = degree;
  payments.columns = {{"amount", Kind::numerical, false, false, 0},
                      {"merchant", Kind::coded, false, false, 0},
                      {"fraud", Kind::boolean, false, true, 0}};
  spec.tables = {customers, payments};
  spec.links = {{"customer_id", PAYMENTS, CUSTOMERS}};
  return spec;
}

// All batches of events: a tenth known late, reports of fraud, changed customers, deletes, and a hub that outgrows a block.
std::vector<std::vector<std::string>> batches(u32 seed) {
  std::mt19937_64 random(seed);
  const auto below = [&](u64 n) { return static_cast<i64>(random() % n); };
  std::vector<std::vector<std::string>> all(BATCHES);
  i64 key = 0, now = START_US;
  for (auto& batch : all) {
    for (u32 i = 0; i < BATCH_PAIRS; ++i) {
      now += SECOND_US;
      const i64 customer = below(2) == 0 ? 0 : below(MIXED_CUSTOMERS);
      const i64 event = below(10) == 0 ? now - below(HOUR_US) : now;
      const i64 known = below(10) == 0 ? event + below(HOUR_US) : event;
      ++key;
      batch.push_back(RowEventBuilder("payments", Operation::insert, key)
                          .times(event, known)
                          .number("amount", static_cast<double>(key))
                          .text("merchant", "merchant " + std::to_string(below(500)))
                          .integer("customer_id", customer)
                          .bytes());
      const i64 paired = MIXED_CUSTOMERS + below(PAIR_CUSTOMERS);
      for (int twin = 0; twin < 2; ++twin) {
        ++key;
        batch.push_back(RowEventBuilder("payments", Operation::insert, -key)
                            .times(now, now)
                            .number("amount", PAIR_AMOUNT)
                            .integer("customer_id", paired)
                            .bytes());
      }
      const i64 old = 1 + 3 * below(static_cast<u64>(key / 3));
      const i64 later = now + i;
      switch (below(6)) {
        case 0:
        case 1:
          batch.push_back(
              RowEventBuilder("payments", Operation::upsert, old).times(later, later).boolean("fraud", true).bytes());
          break;
        case 2:
          batch.push_back(RowEventBuilder("payments", Operation::upsert, old)
                              .times(later, later + below(HOUR_US))
                              .integer("customer_id", below(MIXED_CUSTOMERS))
                              .bytes());
          break;
        case 3: batch.push_back(RowEventBuilder("payments", Operation::remove, old).times(later, later).bytes()); break;
        default: break;
      }
    }
  }
  return all;
}

// Asks until the writer is done, and checks what no reader may ever see.
class Questioner {
 public:
  Questioner(Arena& arena, u32 seed, Strategy strategy)
      : view_(arena), random_(seed), sampler_(arena, 2, 8192, NUMBERS, strategies(strategy), HALF_LIVES, seed) {}

  void ask() {
    const Snapshot snapshot = view_.pin();
    const u32 customers = snapshot.row_limit[CUSTOMERS];
    view_.unpin();
    if (customers == 0) return;
    i64 rows[SEEDS], cutoffs[SEEDS];
    for (u32 i = 0; i < SEEDS; ++i) {
      rows[i] = static_cast<i64>(random_() % customers);
      const i64 span = (BATCHES * BATCH_PAIRS + 3600) * SECOND_US;
      cutoffs[i] = random_() % 3 == 0 ? INT64_MAX : START_US + static_cast<i64>(random_() % span);
    }
    const auto sample =
        requests_ % 2 == 0
            ? sampler_.sample_rows(CUSTOMERS, rows, cutoffs, SEEDS, true, requests_)
            : sampler_.sample_sessions(CUSTOMERS, rows, sessions(), TO_PAYMENTS, cutoffs, cutoffs, SEEDS, requests_);
    check(*sample, cutoffs);
    nodes_ += sample->row.size();
    ++requests_;
  }
  u64 nodes() const { return nodes_; }

 private:
  static constexpr u32 SEEDS = 4;
  static constexpr i32 NUMBERS[4] = {1, 2000, 1, 8};  // [hop][to the parent, to the children]
  static constexpr double HALF_LIVES[4] = {8, 8, 8, 8};
  static const u8* strategies(Strategy strategy) {
    static thread_local u8 all[4];
    std::fill(all, all + 4, static_cast<u8>(strategy));
    return all;
  }

  // For each seed two payments, as pairs are counted, that the writer may just be writing, moving or evicting.
  const SessionEvents& sessions() {
    kept_.clear();
    sessions_ = {};
    for (u32 seed = 0; seed < SEEDS; ++seed) {
      const i64 key = 1 + 3 * static_cast<i64>(random_() % (BATCHES * BATCH_PAIRS - 1));
      for (const i64 one : {key, key + 3})
        kept_.push_back(RowEventBuilder("payments", Operation::insert, one)
                            .times(START_US - 1, START_US - 1)
                            .text("merchant", "merchant " + std::to_string(random_() % 1000))
                            .bytes());
      sessions_.offset.push_back(kept_.size());
    }
    sessions_.events.assign(kept_.begin(), kept_.end());
    return sessions_;
  }

  void check(const Sample& sample, const i64* cutoffs) {
    CHECK(sample.sequence >= sequence_);  // time does not run backward
    sequence_ = sample.sequence;
    if (sample.offsets.size() == 1) CHECK_EQUAL(static_cast<i64>(sample.sequence), sample.offsets[0]);  // one publication
    for (u32 seed = 0; seed < SEEDS; ++seed) {
      const i64 first = sample.seed_offset[seed], end = sample.seed_offset[seed + 1];
      CHECK_EQUAL(sample.row[first] >= 0, true);
      for (i64 node = first; node < end; ++node) {
        if (sample.version[node] < 0) continue;
        CHECK(is_visible(visible_time_us(sample.event_time_us[node], sample.known_time_us[node]), cutoffs[seed]));
      }
      for (i64 edge = sample.edge_offset[seed]; edge < sample.edge_offset[seed + 1]; ++edge) {
        CHECK(sample.edge_source[edge] >= first && sample.edge_source[edge] < end);
        CHECK(sample.edge_target[edge] >= first && sample.edge_target[edge] < end);
      }
      if (pairs_only(sample, first, end)) CHECK_EQUAL((end - first) % 2, 1);  // the customer and whole pairs
    }
  }
  static bool pairs_only(const Sample& sample, i64 first, i64 end) {
    const GatheredTable& payments = sample.gathered[PAYMENTS];
    for (std::size_t i = 0; i < payments.node.size(); ++i)
      if (payments.node[i] >= first && payments.node[i] < end && payments.numerical[i] == PAIR_AMOUNT) return true;
    return false;
  }

  Reader view_;
  std::mt19937_64 random_;
  Sampler sampler_;
  std::vector<std::string> kept_;
  SessionEvents sessions_;
  u64 requests_ = 0, sequence_ = 0, nodes_ = 0;
};

// One writer and two readers over one arena; with `degree`, the writer evicts all the while.
void run(Arena& arena, u32 degree, u32 seed) {
  GraphSpec spec = payments_spec(degree);
  spec.tables[PAYMENTS].columns_on_disk = arena.columns() != nullptr;
  format_graph(arena, spec, "fingerprint", 1);
  Writer writer(arena);
  std::atomic<bool> done{false};
  std::vector<std::thread> readers;
  std::atomic<u64> nodes{0};
  for (u32 reader = 0; reader < 2; ++reader)
    readers.emplace_back([&, reader] {
      Questioner questioner(arena, 100 * seed + reader, reader == 0 ? Strategy::most_recent : Strategy::uniform);
      do questioner.ask(); while (!done.load(std::memory_order_acquire));
      questioner.ask();
      nodes += questioner.nodes();
    });
  for (const auto& batch : batches(seed)) {
    Applied applied;
    for (u64 i = 0; i < batch.size(); ++i) writer.apply(batch[i], i, LogPosition{}, false, applied);
    for (const Rejected& rejected : applied.rejected) std::cerr << rejected.reason << ' ' << rejected.detail << std::endl;
    CHECK_EQUAL(applied.rejected.size(), std::size_t{0});
    writer.set_position("payments", 0, static_cast<i64>(writer.sequence()));
    writer.publish();
    if (degree != NONE && writer.sequence() % 7 == 0) {
      writer.evict();
      writer.publish();
    }
  }
  done.store(true, std::memory_order_release);
  for (std::thread& reader : readers) reader.join();
  CHECK(nodes.load() > 0);
}

}  // namespace

TEST("readers of anonymous memory see whole batches and no future while one writer changes everything") {
  Arena arena(ARENA_BYTES);
  run(arena, NONE, 1);
}

TEST("readers of a mapped file do too, and its slots are free when they are gone") {
  const std::string path = std::filesystem::temp_directory_path() / ("nowgraph-" + std::to_string(::getpid()) + ".arena");
  {
    Arena arena(path, ARENA_BYTES, true);
    run(arena, NONE, 2);
    CHECK_EQUAL(arena.slots_taken(), 0u);
  }
  std::filesystem::remove(path);
}

TEST("eviction under their feet takes nothing that a pinned reader holds") {
  Arena arena(ARENA_BYTES);
  run(arena, 64, 3);
}

TEST("the graph that was built under readers, its columns on disk, is the one that is built alone in memory, in another order") {
  const std::string path = std::filesystem::temp_directory_path() / ("nowgraph-" + std::to_string(::getpid()) + ".columns");
  Arena busy(ARENA_BYTES), alone(ARENA_BYTES);
  busy.add_columns(path, ARENA_BYTES);
  std::filesystem::remove(path);
  run(busy, NONE, 4);
  format_graph(alone, payments_spec(NONE), "fingerprint", 1);
  Writer writer(alone);
  std::vector<std::string> events;
  for (auto& batch : batches(4)) events.insert(events.end(), batch.begin(), batch.end());
  std::shuffle(events.begin(), events.end(), std::mt19937_64(5));
  Applied applied;
  for (u64 i = 0; i < events.size(); ++i) {
    writer.apply(events[i], i, LogPosition{}, false, applied);
    if (i % 97 == 0) writer.publish();
  }
  writer.publish();
  Reader reader(busy);
  CHECK_EQUAL(canonical_hash(reader), canonical_hash(writer.reader()));
}
