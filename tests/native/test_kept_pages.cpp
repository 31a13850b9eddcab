// What changes while an image is made: nothing that the writer does is missing, however it is written, and the writer
// rests for what changed last, not for the graph.
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "canonical.hpp"
#include "image.hpp"
#include "row_event.hpp"
#include "testing.hpp"
#include "writer.hpp"

using namespace nowgraph;
using testing::RowEventBuilder;

namespace {

constexpr u64 ARENA_BYTES = u64{256} << 20;
constexpr i64 NOW_US = 1'700'000'000'000'000, SECOND_US = 1'000'000;
constexpr u32 CUSTOMERS = 0, PAYMENTS = 1, NOTES = 2, VISITS = 3;

// A payment is its customer's own, is forgotten after an hour, and a customer's list keeps 50 of them.
GraphSpec spec_of() {
  GraphSpec spec;
  TableSpec customers, payments, notes, visits;
  customers.name = "customers";
  customers.key_parts_are_text = {false};
  payments.name = "payments";
  payments.key_parts_are_text = {false};
  payments.has_time = true;
  payments.retention_age_us = 3600 * SECOND_US;
  payments.retention_degree = 50;
  payments.columns = {{"amount", Kind::numerical, false, false, 0}, {"shop", Kind::coded, false, false, 0}};
  notes.name = "notes";
  notes.key_parts_are_text = {true};
  visits.name = "visits";
  visits.key_parts_are_text = {false};
  visits.has_time = true;
  spec.tables = {customers, payments, notes, visits};
  spec.links = {{"customer_id", PAYMENTS, CUSTOMERS, true}, {"note", PAYMENTS, NOTES}, {"visitor", VISITS, CUSTOMERS}};
  return spec;
}

struct World {
  std::string path = (std::filesystem::temp_directory_path() / ("nowgraph-kept-" + std::to_string(::getpid()))).string();
  Arena arena{ARENA_BYTES};
  std::unique_ptr<Writer> writer;
  Applied applied;
  std::mt19937_64 random{5};
  i64 next = 0;

  World() {
    format_graph(arena, spec_of(), "kept", 1);
    writer = std::make_unique<Writer>(arena);
    std::filesystem::remove(path);
  }
  ~World() { std::filesystem::remove(path); }

  void put(const RowEventBuilder& event) { writer->apply(event.bytes(), 0, LogPosition{}, false, applied); }
  RowEventBuilder payment(Operation operation, i64 key, i64 time_us) const {
    return RowEventBuilder("payments", operation, key).times(time_us, time_us);
  }
  // Rows with all that a row may have; keys far apart go into the map, others into dense pages.
  void insert(u32 count, i64 stride = 1, i64 late_us = 0) {
    for (u32 i = 0; i < count; ++i, ++next)
      put(payment(Operation::insert, next * stride, NOW_US + next * SECOND_US - late_us)
              .number("amount", static_cast<double>(next))
              .text("shop", "shop " + std::to_string(random() % 5'000))
              .integer("customer_id", static_cast<i64>(random() % 300) * stride)
              .text("note", "note " + std::to_string(random() % 400)));
    writer->publish();
  }
  void change(Operation operation, u32 count) {
    for (u32 i = 0; i < count; ++i)
      put(payment(operation, static_cast<i64>(random() % static_cast<u64>(next)), NOW_US + next * SECOND_US)
              .integer("customer_id", static_cast<i64>(random() % 300)));
    writer->publish();
  }
  std::string restored_hash() const {
    Arena other(ARENA_BYTES);
    const std::string state = restore_image(other, path, "kept", 2);
    take_spec(other, spec_of());
    const Writer again(other, state);
    return canonical_hash(again.reader(), again.erasures());
  }
};

}  // namespace

TEST("whatever the writer did since the copy is in the image: inserts, changes, removals, bulk, retention, erasures") {
  const std::vector<std::function<void(World&)>> acts = {
      [](World& world) { world.insert(2'000); },
      [](World& world) { world.insert(500, 1'000'003); },
      [](World& world) { world.insert(500, 1, 600 * SECOND_US); },
      [](World& world) { world.change(Operation::upsert, 2'000); },
      [](World& world) { world.change(Operation::remove, 500); },
      [](World& world) {
        std::vector<i64> keys(20'000), times(20'000), parents(20'000);
        for (u64 i = 0; i < keys.size(); ++i) {
          keys[i] = 10'000'000 + static_cast<i64>(i) * (i % 2 == 0 ? 1 : 1'000'003);
          times[i] = NOW_US + static_cast<i64>(i);
          parents[i] = static_cast<i64>(world.random() % 40'000);
        }
        world.writer->append(VISITS, keys.data(), times.data(), nullptr, {parents.data()}, keys.size(), world.applied);
        world.writer->append(CUSTOMERS, keys.data(), times.data(), nullptr, {}, keys.size(), world.applied);
        world.writer->publish();
      },
      [](World& world) {
        world.next += 2 * 3600;
        world.insert(10);
        CHECK(world.writer->evict().rows > 0);
        world.writer->publish();
      },
      [](World& world) {
        for (i64 key = 0; key < 100; ++key)
          world.put(RowEventBuilder("customers", Operation::erase, key)
                        .times(NOW_US + (key % 2) * world.next * SECOND_US, NOW_US + world.next * SECOND_US));
        world.writer->publish();
        world.insert(100);
      },
  };
  for (const bool again : {false, true})
    for (const auto& act : acts) {
      World world;
      world.insert(3'000);
      ImageWriter image(world.arena, world.path);
      image.copy(0);
      if (again) {  // it had to wait
        world.insert(300);
        image.copy(0);
      }
      act(world);
      CHECK(image.settle(world.writer->save()) > 0);
      CHECK_EQUAL(image.differing(), u64{0});
      CHECK_EQUAL(world.applied.rejected.size(), std::size_t{0});
      const std::string hash = canonical_hash(world.writer->reader(), world.writer->erasures());
      world.insert(300);  // no part of it any more
      image.finish();
      verify_image(world.path);
      CHECK_EQUAL(world.restored_hash(), hash);
    }
}

TEST("pages that change faster than they are written, more than there is room for, are in the image as they were left") {
  constexpr u64 PAGES = 24'576, HOT = 16'384, MORE = 8'192;  // room is for a quarter
  const std::string path = World().path;
  Arena arena(ARENA_BYTES), other(ARENA_BYTES);
  arena.format("kept", 1);
  const u64 start = arena.allocate(PAGES * IMAGE_PAGE_BYTES);
  std::mt19937_64 random(6);
  const auto write = [&](u64 offset) {
    u64* words = arena.at<u64>(offset);
    for (u64 i = 0; i < IMAGE_PAGE_BYTES / 8; ++i) words[i] = random();
    arena.written(words, IMAGE_PAGE_BYTES);
  };
  for (u64 page = 0; page < PAGES; ++page) write(start + page * IMAGE_PAGE_BYTES);

  ImageWriter image(arena, path);
  std::atomic<bool> copied{false};
  std::thread copying([&] {
    image.copy(u64{400} << 20);
    copied = true;
  });
  for (u64 turn = 0, more = 0; !copied; ++turn) {
    write(start + turn % HOT * IMAGE_PAGE_BYTES);  // one after another: few are written again before the writer rests
    if (more < MORE && turn % 8 == 0) write(arena.allocate(IMAGE_PAGE_BYTES)), ++more;
  }
  copying.join();
  CHECK(image.settle("state") > 0);
  CHECK_EQUAL(image.differing(), u64{0});
  image.finish();
  verify_image(path);
  CHECK_EQUAL(restore_image(other, path, "kept", 2), "state");
  CHECK_EQUAL(other.header().used.load(), arena.header().used.load());
  CHECK_EQUAL(std::memcmp(other.at<char>(start), arena.at<char>(start), arena.header().used.load() - start), 0);
  std::filesystem::remove(path);
}

TEST("columns appended to pages that an image has are in it: rows, keys, slots one after another or in turn") {
  for (const i64 apart : {i64{0}, i64{DENSE_PAGE_KEYS}}) {
    World world;
    i64 next_key = 0;
    const auto append = [&](u32 count) {
      std::vector<i64> keys(count), parents(count, 7);
      for (u32 i = 0; i < count; ++i, ++next_key) keys[i] = apart == 0 ? next_key : next_key / 2 + next_key % 2 * apart;
      world.writer->append(VISITS, keys.data(), keys.data(), nullptr, {parents.data()}, count, world.applied);
      world.writer->publish();
    };
    append(200);
    ImageWriter image(world.arena, world.path);
    image.copy(0);
    append(apart == 0 ? 10 : 3'000);
    CHECK(image.settle(world.writer->save()) > 0);
    CHECK_EQUAL(image.differing(), u64{0});
  }
}

TEST("a byte that was written and not said is found where it is looked for") {
  World world;
  world.insert(3'000);
  ImageWriter image(world.arena, world.path);
  image.copy(0);
  image.settle(world.writer->save());
  CHECK_EQUAL(image.differing(), u64{0});
  *world.arena.at<char>(world.arena.header().used.load() / 2) ^= 1;
  CHECK_EQUAL(image.differing(), u64{1});
}

TEST("the writer rests for what changed last: as many pages in a graph of ten times the size") {
  u64 pages[2];
  for (const u32 times : {1u, 10u}) {
    World world;
    world.insert(4'000 * times);
    ImageWriter image(world.arena, world.path);
    image.copy(0);
    world.put(world.payment(Operation::upsert, 7, NOW_US + world.next * SECOND_US).number("amount", 1));
    world.writer->publish();
    pages[times == 1 ? 0 : 1] = image.settle(world.writer->save());
  }
  CHECK(pages[1] < pages[0] + pages[0] / 2);
}

TEST("an image whose pages are larger, as they were once, is read by what it says") {
  constexpr u64 LARGE = u64{1} << 16;
  World world;
  world.insert(3'000);
  ImageWriter image(world.arena, world.path);
  image.settle(world.writer->save());
  image.finish();
  std::string bytes;
  {
    std::ifstream file(world.path, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(file), {});
  }
  ImageFooter footer;
  std::memcpy(&footer, bytes.data() + bytes.size() - sizeof footer, sizeof footer);
  const std::string state = bytes.substr(footer.page_count * IMAGE_PAGE_BYTES, footer.state_bytes);
  bytes.resize(footer.page_count * IMAGE_PAGE_BYTES);
  bytes.resize((bytes.size() + LARGE - 1) / LARGE * LARGE, '\0');
  std::vector<u64> hashes;
  for (u64 at = 0; at < bytes.size(); at += LARGE) hashes.push_back(hash_page(bytes.data() + at, LARGE));
  footer.page_bytes = LARGE;
  footer.page_count = hashes.size();
  footer.pages_hash = hash_page(reinterpret_cast<const char*>(hashes.data()), 8 * hashes.size());
  footer.footer_hash = hash_page(reinterpret_cast<const char*>(&footer), offsetof(ImageFooter, footer_hash));
  bytes += state;
  bytes.append(reinterpret_cast<const char*>(hashes.data()), 8 * hashes.size());
  bytes.append(reinterpret_cast<const char*>(&footer), sizeof footer);
  std::ofstream(world.path, std::ios::binary) << bytes;
  verify_image(world.path);
  CHECK_EQUAL(world.restored_hash(), canonical_hash(world.writer->reader(), world.writer->erasures()));
}
