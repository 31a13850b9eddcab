// Erasure: nothing of what is erased stays, nothing else goes, the order of arrival does not matter, readers are safe.
#include <algorithm>
#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "canonical.hpp"
#include "row_event.hpp"
#include "sampler.hpp"
#include "sha256.hpp"
#include "testing.hpp"
#include "view.hpp"
#include "writer.hpp"

using namespace nowgraph;
using testing::RowEventBuilder;

namespace {

constexpr u64 ARENA_BYTES = u64{64} << 20;
constexpr u32 CUSTOMERS = 0, PAYMENTS = 1, EMAILS = 2, ITEMS = 3;
constexpr i64 NOW_US = 1'700'000'000'000'000;

// A payment is its customer's own; a customer's address is a row that only its customers name.
GraphSpec spec_of() {
  GraphSpec spec;
  spec.tables.resize(3);
  TableSpec &customers = spec.tables[CUSTOMERS], &payments = spec.tables[PAYMENTS], &emails = spec.tables[EMAILS];
  customers.name = "customers";
  customers.key_parts_are_text = {false};
  customers.columns = {{"name", Kind::coded, false, false, 0}, {"city", Kind::coded, false, false, 0}};
  payments.name = "payments";
  payments.key_parts_are_text = {false};
  payments.has_time = true;
  payments.columns = {{"amount", Kind::numerical, false, false, 0}, {"note", Kind::coded, false, false, 0}};
  emails.name = "emails";
  emails.key_parts_are_text = {true};
  spec.links = {{"customer_id", PAYMENTS, CUSTOMERS, true},
                {"email", CUSTOMERS, EMAILS},
                {"seen_by", PAYMENTS, CUSTOMERS}};
  return spec;
}

struct World {
  Arena arena{ARENA_BYTES};
  std::unique_ptr<Writer> writer;
  Applied applied;

  explicit World(const GraphSpec& spec = spec_of()) {
    format_graph(arena, spec, "erasure", 1);
    writer = std::make_unique<Writer>(arena);
  }
  void put(const std::string& event) { writer->apply(event, 0, LogPosition{}, false, applied); }
  void apply(const std::vector<std::string>& events) {
    for (const std::string& event : events) put(event);
    CHECK_EQUAL(applied.rejected.size(), std::size_t{0});
    writer->publish();
  }
  bool holds(std::string_view bytes) const {
    const std::string_view all(arena.at<char>(0), arena.header().used.load());
    return all.find(bytes) != std::string_view::npos;
  }
  const ErasedCounts& erased(u32 table) const { return writer->reader().table(table).erased; }
  std::string hash() const { return canonical_hash(writer->reader(), writer->erasures()); }
};

std::string number_bytes(double value) { return {reinterpret_cast<const char*>(&value), sizeof value}; }

std::string customer(i64 key, const std::string& name, const std::string& city) {
  return RowEventBuilder("customers", Operation::insert, key)
      .text("name", name).text("city", city).text("email", name + "@example.org").bytes();
}
std::string payment(i64 key, i64 event, i64 of, double amount, const std::string& note) {
  return RowEventBuilder("payments", Operation::insert, key)
      .times(event, event).number("amount", amount).text("note", note).integer("customer_id", of).bytes();
}
std::string erasure(const char* table, i64 key, i64 until) {
  return RowEventBuilder(table, Operation::erase, key).times(until, until).bytes();
}

std::vector<std::string> two_people() {
  return {customer(424242424242, "Ada Lovelace", "London"),
          customer(2, "Grace Hopper", "London"),
          payment(77, NOW_US, 424242424242, 1234.5678, "for Ada's engine"),
          payment(78, NOW_US + 1, 2, 8765.4321, "a moth"),
          RowEventBuilder("payments", Operation::upsert, 77).times(NOW_US + 5, NOW_US + 5).text("note", "Ada again").bytes()};
}

}  // namespace

TEST("a digest is SHA-256 as the standard has it") {
  const auto hex = [](std::string_view text) {
    std::string out;
    for (const u8 byte : sha256(text))
      for (const int digit : {byte >> 4, byte & 15}) out.push_back("0123456789abcdef"[digit]);
    return out;
  };
  CHECK_EQUAL(hex(""), std::string("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
  CHECK_EQUAL(hex("abc"), std::string("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
  CHECK_EQUAL(hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
              std::string("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"));
}

TEST("what is erased is gone to the last byte, and what is not stays where it was") {
  World world;
  world.apply(two_people());
  const Reader& reader = world.writer->reader();
  const i64 key = 424242424242;
  const std::string key_bytes(reinterpret_cast<const char*>(&key), sizeof key);
  const std::vector<std::string> hers{"Ada Lovelace", "Ada Lovelace@example.org", "for Ada's engine", "Ada again",
                                      number_bytes(1234.5678), key_bytes};
  for (const std::string& text : hers) CHECK(world.holds(text));
  const Dictionary& names = *reader.dictionary(reader.columns(reader.table(CUSTOMERS))[0]);
  const u32 code = reader.find_code(names, "Grace Hopper");
  const u32 row = reader.find(reader.table(CUSTOMERS), i64{2});

  world.apply({erasure("customers", key, NOW_US + 100)});
  for (const std::string& text : hers) CHECK(!world.holds(text));
  for (const std::string text : {"Grace Hopper", "Grace Hopper@example.org", "London", "a moth"}) CHECK(world.holds(text));
  CHECK(world.holds(number_bytes(8765.4321)));
  CHECK_EQUAL(reader.find(reader.table(CUSTOMERS), key), NONE);
  CHECK_EQUAL(reader.find(reader.table(PAYMENTS), i64{77}), NONE);
  CHECK_EQUAL(reader.find(reader.table(EMAILS), "Ada Lovelace@example.org"), NONE);
  CHECK_EQUAL(reader.find(reader.table(CUSTOMERS), i64{2}), row);
  CHECK_EQUAL(reader.find_code(names, "Grace Hopper"), code);
  CHECK_EQUAL(world.erased(CUSTOMERS).rows.load(), u64{1});
  CHECK_EQUAL(world.erased(PAYMENTS).rows.load(), u64{1});
  CHECK_EQUAL(world.erased(PAYMENTS).versions.load(), u64{2});
  CHECK_EQUAL(world.erased(PAYMENTS).links.load(), u64{1});
  CHECK_EQUAL(world.erased(PAYMENTS).strings.load(), u64{2});
  CHECK_EQUAL(world.erased(CUSTOMERS).strings.load(), u64{1});  // London is Grace's too
  CHECK_EQUAL(world.erased(EMAILS).rows.load(), u64{1});
  CHECK_EQUAL(world.applied.applied, u64{6});
}

TEST("changes until then are dropped when they come again or late, later ones are a new row") {
  World world;
  world.apply(two_people());
  world.apply({erasure("customers", 424242424242, NOW_US + 100)});
  world.apply(two_people());
  CHECK_EQUAL(world.applied.erased, u64{3});
  CHECK_EQUAL(world.applied.duplicate, u64{2});
  CHECK(!world.holds("Ada"));
  world.apply({payment(77, NOW_US + 100, 2, 1.0, "Ada, on the last microsecond")});
  CHECK(!world.holds("Ada"));
  world.apply({payment(77, NOW_US + 101, 424242424242, 1.0, "Ada, anew")});
  CHECK(world.holds("Ada, anew"));
  CHECK(world.writer->reader().find(world.writer->reader().table(PAYMENTS), i64{77}) != NONE);
  const u64 duplicates = world.applied.duplicate;
  world.apply({erasure("customers", 424242424242, NOW_US + 100), erasure("customers", 424242424242, NOW_US + 50)});
  CHECK_EQUAL(world.applied.duplicate, duplicates + 2);
  CHECK(world.holds("Ada, anew"));
}

TEST("what is a person's own is erased though retention has dropped the person's row, and the one that came after it") {
  GraphSpec spec = spec_of();
  spec.tables[CUSTOMERS].has_time = true;
  spec.tables[CUSTOMERS].retention_age_us = 1000;
  World world(spec);
  const auto signed_up = [](i64 key, i64 time) { return RowEventBuilder("customers", Operation::insert, key).times(time, time).bytes(); };
  world.apply({signed_up(1, NOW_US), payment(77, NOW_US + 5, 1, 1, "before"), payment(78, NOW_US + 5, 2, 2, "another's"),
               signed_up(1'000, NOW_US + 5000)});
  for (const i64 key : {79, 80}) {
    CHECK_EQUAL(world.writer->evict().rows, u64{1});
    world.apply({signed_up(1, NOW_US + 100 * key), payment(key, NOW_US + 100 * key, 1, 3, "after")});
  }
  world.apply({erasure("customers", 1, NOW_US + 10'000)});
  const Reader& reader = world.writer->reader();
  for (const i64 key : {77, 79, 80}) CHECK_EQUAL(reader.find(reader.table(PAYMENTS), key), NONE);
  CHECK(reader.find(reader.table(PAYMENTS), i64{78}) != NONE);
  CHECK(!world.holds("before") && !world.holds("after") && world.holds("another's"));
  CHECK_EQUAL(world.erased(PAYMENTS).rows.load(), u64{3});
}

TEST("what hangs on a person by a row that retention has dropped is erased with the person") {
  GraphSpec spec = spec_of();
  spec.tables[PAYMENTS].retention_age_us = 1000;
  TableSpec& items = spec.tables.emplace_back();
  items.name = "items";
  items.key_parts_are_text = {false};
  spec.links.push_back({"payment_id", ITEMS, PAYMENTS, true});
  World world(spec);
  const auto item = [](i64 key, i64 of) { return RowEventBuilder("items", Operation::insert, key).integer("payment_id", of).bytes(); };
  world.apply({payment(77, NOW_US, 1, 1, ""), item(5, 77), payment(78, NOW_US, 2, 2, ""), item(6, 78),
               payment(79, NOW_US + 5000, 1, 3, ""), item(7, 79)});
  CHECK_EQUAL(world.writer->evict().rows, u64{2});
  world.apply({erasure("customers", 1, NOW_US + 10'000)});
  const Reader& reader = world.writer->reader();
  for (const i64 key : {5, 7}) CHECK_EQUAL(reader.find(reader.table(ITEMS), key), NONE);
  CHECK(reader.find(reader.table(ITEMS), i64{6}) != NONE);
}

TEST("the graph is the same whatever the order, also through rows that a change makes someone's own only later") {
  std::vector<std::string> events = two_people();
  events.push_back(erasure("customers", 424242424242, NOW_US + 100));
  events.push_back(erasure("payments", 79, NOW_US + 3));
  // A payment's patches before anybody knows whose it is, one of them after the erasure.
  events.push_back(RowEventBuilder("payments", Operation::upsert, 79).times(NOW_US + 7, NOW_US + 7).text("note", "whose?").bytes());
  events.push_back(RowEventBuilder("payments", Operation::upsert, 79).times(NOW_US + 200, NOW_US + 200).text("note", "late").bytes());
  events.push_back(payment(79, NOW_US + 2, 424242424242, 9.0, "Ada's"));
  events.push_back(RowEventBuilder("payments", Operation::upsert, 78).times(NOW_US + 8, NOW_US + 8).integer("seen_by", 424242424242).bytes());
  events.push_back(RowEventBuilder("payments", Operation::upsert, 78).times(NOW_US + 300, NOW_US + 300).integer("seen_by", 424242424242).bytes());
  std::mt19937 random(7);
  World first;
  first.apply(events);
  CHECK(!first.holds("Ada"));
  CHECK(!first.holds("whose?"));
  for (int round = 0; round < 200; ++round) {
    std::shuffle(events.begin(), events.end(), random);
    World again;
    for (const std::string& event : events) again.apply(std::vector{event});
    CHECK_EQUAL(again.hash(), first.hash());
    again.apply(events);
    CHECK_EQUAL(again.hash(), first.hash());
    for (const char* text : {"Ada", "whose?"}) CHECK(!again.holds(text));
  }
}

TEST("a reader that was there before goes on with what it has found, and only then are the bytes overwritten") {
  World world;
  world.apply(two_people());
  View view(std::shared_ptr<Arena>(&world.arena, [](Arena*) {}));
  const Snapshot snapshot = view.reader.pin();
  const TableHeader& table = view.reader.table(PAYMENTS);
  const u32 row = view.reader.find(table, i64{77});
  const char* amount = view.reader.inline_cell(table, view.reader.row(table, row), 0);
  world.apply({erasure("customers", 424242424242, NOW_US + 100)});
  CHECK_EQUAL(load<double>(amount), 1234.5678);
  CHECK(world.holds("Ada Lovelace"));
  CHECK(view.reader.graph().overwrites_due.load() > 0);
  CHECK(view.reader.resolve(snapshot, table, view.reader.row(table, row), INT64_MAX).state == State::bare);
  view.reader.unpin();
  world.writer->publish();
  CHECK_EQUAL(view.reader.graph().overwrites_due.load(), u64{0});
  CHECK(!world.holds("Ada Lovelace"));
}

TEST("a writer that goes on from an image knows what is erased, and overwrites what was still to be") {
  World world;
  world.apply(two_people());
  View view(std::shared_ptr<Arena>(&world.arena, [](Arena*) {}));
  view.reader.pin();
  world.apply({erasure("customers", 424242424242, NOW_US + 100)});
  const std::string state = world.writer->save();
  const std::string hash = world.hash();
  view.reader.unpin();
  CHECK(world.holds("Ada Lovelace"));
  world.writer.reset();
  world.writer = std::make_unique<Writer>(world.arena, state);
  CHECK(!world.holds("Ada"));
  CHECK_EQUAL(world.hash(), hash);
  world.apply(two_people());
  CHECK(!world.holds("Ada"));
  CHECK_EQUAL(world.hash(), hash);
}

TEST("readers sample while customers are erased and come again: each node is whole or not there") {
  World world;
  std::atomic<bool> done{false};
  std::atomic<u64> nodes{0};
  constexpr i64 PEOPLE = 30;
  const auto note_of = [](i64 key) { return "note " + std::to_string(key); };
  std::vector<std::thread> readers;
  for (u64 seed = 0; seed < 2; ++seed)
    readers.emplace_back([&, seed] {
      View view(std::shared_ptr<Arena>(&world.arena, [](Arena*) {}));
      const TableHeader& customers = view.reader.table(CUSTOMERS);
      const TableHeader& payments = view.reader.table(PAYMENTS);
      std::mt19937_64 random(seed);
      while (!done) {
        const Snapshot snapshot = view.reader.pin();
        const u32 row = view.reader.find(customers, static_cast<i64>(random() % PEOPLE));
        if (row != NONE) {
          const List list = view.reader.list(Reader::list_word_of(view.reader.row(customers, row), 0));
          for (u32 i = 0; i < view.reader.visible_prefix(list, payments, INT64_MAX - 1); ++i) {
            const Entry& entry = view.reader.at(list, i);
            const u32 child = view.reader.child(entry);
            const char* record = view.reader.row(payments, child);
            if (!view.reader.linked(snapshot, PAYMENTS, payments, entry, child, record, 0, row, INT64_MAX - 1)) continue;
            const char* amount = view.reader.cell(snapshot, payments, record, 0, INT64_MAX - 1);
            const char* note = view.reader.cell(snapshot, payments, record, 1, INT64_MAX - 1);
            if (amount == nullptr || note == nullptr) continue;  // erased since the link was looked at
            const auto& column = view.reader.columns(payments)[1];
            const std::string text(view.reader.string_of(*view.reader.dictionary(column), load<u32>(note)));
            CHECK_EQUAL(text, note_of(static_cast<i64>(load<double>(amount))));
            ++nodes;
          }
        }
        view.reader.unpin();
      }
    });
  std::mt19937_64 random(1);
  i64 key = 0;
  for (int batch = 0; batch < 1500; ++batch) {
    std::vector<std::string> events;
    for (int i = 0; i < 8; ++i, ++key)
      events.push_back(payment(key, NOW_US + key, static_cast<i64>(random() % PEOPLE), static_cast<double>(key), note_of(key)));
    events.push_back(erasure("customers", static_cast<i64>(random() % PEOPLE), NOW_US + key - 20));
    world.apply(events);
  }
  while (nodes == 0) std::this_thread::yield();
  done = true;
  for (std::thread& reader : readers) reader.join();
  world.writer->publish();
  CHECK_EQUAL(world.writer->reader().graph().overwrites_due.load(), u64{0});
}
