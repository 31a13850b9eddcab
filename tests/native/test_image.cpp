// Images: what is written beside a busy writer is the graph as it was when the writer rested, and goes on as that graph.
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <thread>

#include "canonical.hpp"
#include "image.hpp"
#include "row_event.hpp"
#include "sampler.hpp"
#include "testing.hpp"
#include "writer.hpp"

using namespace nowgraph;
using testing::RowEventBuilder;

namespace {

constexpr u64 ARENA_BYTES = u64{256} << 20;
constexpr i64 START_US = 1'700'000'000'000'000, SECOND_US = 1'000'000;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr u32 BATCHES = 200;
#else
constexpr u32 BATCHES = 1500;
#endif

GraphSpec payments_spec(bool on_disk = false) {
  GraphSpec spec;
  TableSpec customers, payments;
  customers.name = "customers";
  customers.key_parts_are_text = {true};
  payments.name = "payments";
  payments.key_parts_are_text = {false};
  payments.has_time = true;
  payments.columns = {{"amount", Kind::numerical, false, false, 0}, {"merchant", Kind::coded, false, false, 0}};
  payments.columns_on_disk = on_disk;
  spec.tables = {customers, payments};
  spec.links = {{"customer_id", 1, 0}};
  return spec;
}

std::string folder() {
  const auto path = std::filesystem::temp_directory_path() / ("nowgraph-image-" + std::to_string(::getpid()));
  std::filesystem::create_directories(path);
  return path.string();
}

// With a columns' file that has no name any more.
void give_columns(Arena& arena) {
  const std::string path = folder() + "/columns";
  arena.add_columns(path, ARENA_BYTES);
  std::filesystem::remove(path);
}

// One batch of the log: inserts, some changed later, some of a hub, some with strings never seen.
void apply_batch(Writer& writer, u32 batch) {
  std::mt19937_64 random(batch);
  Applied applied;
  for (u32 i = 0; i < 24; ++i) {
    const i64 key = i64{batch} * 24 + i, now = START_US + key * SECOND_US;
    const i64 old = static_cast<i64>(random() % static_cast<u64>(key + 1));
    const std::string customer = random() % 2 == 0 ? "hub" : "customer " + std::to_string(random() % 500);
    writer.apply(RowEventBuilder("payments", Operation::insert, key)
                     .times(now, now)
                     .number("amount", static_cast<double>(key))
                     .text("merchant", "merchant " + std::to_string(random() % 2000))
                     .text("customer_id", customer)
                     .bytes(),
                 i, LogPosition{}, false, applied);
    if (random() % 4 == 0)
      writer.apply(RowEventBuilder("payments", random() % 5 == 0 ? Operation::remove : Operation::upsert, old)
                       .times(now, now)
                       .bytes(),
                   i, LogPosition{}, false, applied);
    if (random() % 4 == 0)
      writer.apply(RowEventBuilder("payments", Operation::upsert, old)
                       .times(now, now)
                       .number("amount", static_cast<double>(random() % 100))
                       .bytes(),
                   i, LogPosition{}, false, applied);
  }
  CHECK_EQUAL(applied.rejected.size(), std::size_t{0});
  writer.set_position("payments", 0, batch + 1);
  writer.publish();
}

std::string hash_of(const Writer& writer) { return canonical_hash(writer.reader()); }

// An image of the graph after some batches, copied while they were applied.
std::string image_beside(Writer& writer, Arena& arena, u32 batches, const std::string& path) {
  std::filesystem::remove(path);
  std::filesystem::remove(columns_of_image(path));
  ImageWriter image(arena, path);
  std::atomic<bool> copied{false};
  std::thread copying([&] {
    image.copy(u64{200} << 20);
    copied = true;
  });
  u32 batch = 0;
  for (; batch < batches || !copied; ++batch)
    if (batch < batches) apply_batch(writer, batch); else std::this_thread::yield();
  copying.join();
  CHECK(image.settle(writer.save()) > 0);
  CHECK_EQUAL(image.differing(), u64{0});
  const std::string hash = hash_of(writer);
  for (u32 more = 0; more < 50; ++more) apply_batch(writer, batches + more);  // after it: no part of the image
  image.finish();
  return hash;
}

}  // namespace

TEST("an image written beside a busy writer is the graph as it was when the writer rested, and goes on as that graph") {
  for (const bool on_disk : {false, true}) {
    const std::string path = folder() + "/beside";
    Arena arena(ARENA_BYTES), other(2 * ARENA_BYTES);
    if (on_disk) give_columns(arena);
    if (on_disk) give_columns(other);
    format_graph(arena, payments_spec(on_disk), "fingerprint", 7);
    Writer writer(arena);
    const std::string hash = image_beside(writer, arena, BATCHES, path);
    verify_image(path);

    const std::string state = restore_image(other, path, "fingerprint", 8);
    take_spec(other, payments_spec(on_disk));
    Writer restored(other, state);
    CHECK_EQUAL(hash_of(restored), hash);
    CHECK_EQUAL(other.header().generation, 8);
    for (u32 more = 0; more < 50; ++more) apply_batch(restored, BATCHES + more);
    CHECK_EQUAL(hash_of(restored), hash_of(writer));
    CHECK_EQUAL(restored.sequence(), writer.sequence());
    CHECK_EQUAL(restored.memory().adjacency.entries, writer.memory().adjacency.entries);
    CHECK_EQUAL(restored.memory().used_bytes, writer.memory().used_bytes);
    CHECK_EQUAL(restored.memory().columns_bytes, writer.memory().columns_bytes);
    std::filesystem::remove_all(folder());
  }
}

TEST("an image is restored into a file that others map, and its readers' slots are free") {
  const std::string path = folder() + "/image", file = folder() + "/arena";
  Arena arena(ARENA_BYTES);
  format_graph(arena, payments_spec(), "fingerprint", 1);
  Writer writer(arena);
  const Reader held(arena);
  const std::string hash = image_beside(writer, arena, 40, path);
  {
    Arena shared(file, ARENA_BYTES, true);
    const std::string state = restore_image(shared, path, "fingerprint", 2);
    take_spec(shared, payments_spec());
    Writer restored(shared, state);
    CHECK_EQUAL(hash_of(restored), hash);
    Arena mapped(file, 0, false);
    const Reader reader(mapped);
    CHECK_EQUAL(canonical_hash(reader), hash);
    CHECK_EQUAL(shared.slots_taken(), 2u);
  }
  std::filesystem::remove_all(folder());
}

TEST("an image is restored alike from the disk and from the page cache, and refused where a file system has no room for it") {
  const std::string path = folder() + "/image", file = folder() + "/arena";
  Arena arena(ARENA_BYTES);
  format_graph(arena, payments_spec(), "fingerprint", 1);
  Writer writer(arena);
  const std::string hash = image_beside(writer, arena, BATCHES, path);
  for (const bool cached : {false, true}) {
    const int fd = ::open(path.c_str(), O_RDONLY);
    ::fsync(fd);
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
    if (cached) std::ostringstream() << std::ifstream(path, std::ios::binary).rdbuf();
    Arena shared(file, ARENA_BYTES, true);
    const Writer restored(shared, restore_image(shared, path, "fingerprint", 2));
    CHECK_EQUAL(hash_of(restored), hash);
    std::filesystem::remove(file);
  }

  Arena shared(file, ARENA_BYTES, true);
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit usual{};
  ::getrlimit(RLIMIT_FSIZE, &usual);
  const rlimit little{rlim_t{1} << 19, usual.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &little);
  CHECK_THROWS(restore_image(shared, path, "fingerprint", 2), ArenaFull);
  ::setrlimit(RLIMIT_FSIZE, &usual);
  std::filesystem::remove_all(folder());
}

TEST("a damaged image is refused wherever the damage lies, and one that is cut off") {
  const std::string path = folder() + "/damaged";
  Arena arena(ARENA_BYTES);
  format_graph(arena, payments_spec(), "fingerprint", 1);
  Writer writer(arena);
  image_beside(writer, arena, 30, path);
  const u64 bytes = std::filesystem::file_size(path);
  std::mt19937_64 random(3);
  for (u32 trial = 0; trial < 60; ++trial) {
    // The pages, then what stands behind them.
    const u64 at = trial % 3 == 0 ? bytes - 1 - random() % 20'000 : random() % bytes;
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const char was = static_cast<char>(file.get());
    const auto put = [&](char value) {
      file.seekp(static_cast<std::streamoff>(at));
      file.put(value);
      file.flush();
    };
    put(static_cast<char>(was ^ (1 << random() % 8)));
    CHECK_THROWS(verify_image(path), ImageRefused);
    Arena other(ARENA_BYTES);
    CHECK_THROWS(restore_image(other, path, "fingerprint", 2), ImageRefused);
    put(was);
  }
  verify_image(path);
  std::filesystem::resize_file(path, bytes - 1);
  CHECK_THROWS(verify_image(path), ImageRefused);
  std::filesystem::resize_file(path, 0);
  CHECK_THROWS(verify_image(path), ImageRefused);
  std::filesystem::remove_all(folder());
}

TEST("an image of other tables, or too large for the arena, is refused; bounds come from the schema") {
  const std::string path = folder() + "/other";
  Arena arena(ARENA_BYTES);
  format_graph(arena, payments_spec(), "fingerprint", 1);
  Writer writer(arena);
  image_beside(writer, arena, 10, path);
  Arena small(u64{1} << 16);
  CHECK_THROWS(restore_image(small, path, "fingerprint", 2), ArenaFull);

  Arena other(ARENA_BYTES);
  restore_image(other, path, "fingerprint", 2);
  GraphSpec bounded = payments_spec();
  bounded.tables[1].retention_degree = 5;
  take_spec(other, bounded);
  const Reader reader(other);
  CHECK_EQUAL(reader.table(1).retention_degree, 5u);
  for (u32 change = 0; change < 6; ++change) {
    GraphSpec spec = payments_spec();
    if (change == 0) spec.tables[1].columns[0].name = "sum";
    if (change == 1) spec.tables[1].columns[0].kind = Kind::coded;
    if (change == 2) spec.tables[1].columns.pop_back();
    if (change == 3) spec.tables[0].key_parts_are_text = {false};
    if (change == 4) spec.links[0].name = "client_id";
    if (change == 5) spec.tables.push_back(spec.tables[0]);
    CHECK_THROWS(take_spec(other, spec), ImageRefused);
  }
  std::filesystem::remove_all(folder());
}

TEST("columns move to the disk, and back into memory, with a graph that is taken over") {
  for (const bool to_disk : {false, true}) {
    const std::string path = folder() + "/moved";
    Arena arena(ARENA_BYTES), moved(ARENA_BYTES);
    give_columns(to_disk ? moved : arena);
    format_graph(arena, payments_spec(!to_disk), "fingerprint", 1);
    Writer writer(arena);
    image_beside(writer, arena, 60, path);  // of 60 batches, and 50 more
    const std::string state = restore_image(moved, path, "fingerprint", 2);
    CHECK(!fits_spec(moved, payments_spec(to_disk)));
    moved.clear();
    format_graph(moved, payments_spec(to_disk), "fingerprint", 2);
    Writer other(moved);
    {
      const std::unique_ptr<Arena> mapped = Arena::of_image(path);
      other.take_over(Reader(*mapped), state);
    }
    for (u32 batch = 60; batch < 110; ++batch) apply_batch(other, batch);
    CHECK_EQUAL(hash_of(other), hash_of(writer));
    std::filesystem::remove_all(folder());
  }
}

TEST("an image whose columns are damaged, cut off or gone is refused") {
  const std::string path = folder() + "/columns-of", columns = columns_of_image(path);
  Arena arena(ARENA_BYTES);
  give_columns(arena);
  format_graph(arena, payments_spec(true), "fingerprint", 1);
  Writer writer(arena);
  image_beside(writer, arena, 30, path);
  verify_image(path);
  const auto refused = [&] {
    CHECK_THROWS(verify_image(path), ImageRefused);
    Arena other(ARENA_BYTES);
    give_columns(other);
    CHECK_THROWS(restore_image(other, path, "fingerprint", 2), ImageRefused);
  };
  {
    std::fstream file(columns, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(100'000);
    file.put('x');
  }
  refused();
  std::filesystem::resize_file(columns, std::filesystem::file_size(columns) - 1);
  refused();
  std::filesystem::remove(columns);
  refused();
  std::filesystem::remove_all(folder());
}

TEST("a graph of fewer tables, columns and links is taken over whole; one that lacks something is refused") {
  const std::string path = folder() + "/migrated";
  std::filesystem::create_directories(folder());
  GraphSpec larger = payments_spec();
  TableSpec shops = larger.tables[0];
  shops.name = "shops";
  larger.tables.insert(larger.tables.begin(), shops);  // every table's index moves
  larger.tables[2].columns.insert(larger.tables[2].columns.begin(), {"fee", Kind::numerical, false, false, 0});
  larger.links = {{"shop_id", 2, 0}, {"customer_id", 2, 1}};

  Arena arena(ARENA_BYTES), rebuilt(ARENA_BYTES), taken(ARENA_BYTES);
  format_graph(arena, payments_spec(), "fingerprint", 1);
  format_graph(rebuilt, larger, "other", 2);
  format_graph(taken, larger, "other", 2);
  Writer writer(arena), again(rebuilt), other(taken);
  image_beside(writer, arena, 60, path);  // of 60 batches
  for (u32 batch = 0; batch < 60; ++batch) apply_batch(again, batch);
  CHECK(!fits_spec(arena, larger));
  {
    const std::unique_ptr<Arena> mapped = Arena::of_image(path);
    other.take_over(Reader(*mapped), writer.save());
  }
  CHECK_EQUAL(hash_of(other), hash_of(again));
  for (u32 batch = 60; batch < 90; ++batch) {
    apply_batch(other, batch);
    apply_batch(again, batch);
  }
  CHECK_EQUAL(hash_of(other), hash_of(again));

  for (u32 change = 0; change < 5; ++change) {
    GraphSpec spec = payments_spec();
    if (change == 0) spec.tables[1].columns.pop_back();
    if (change == 1) spec.tables[1].columns[1].kind = Kind::numerical;
    if (change == 2) spec.links.clear();
    if (change == 3) spec.tables[0].key_parts_are_text = {false};
    if (change == 4) spec.tables[1].has_time = false;
    Arena fresh(ARENA_BYTES);
    format_graph(fresh, spec, "other", 2);
    Writer lacking(fresh);
    const std::unique_ptr<Arena> mapped = Arena::of_image(path);
    CHECK_THROWS(lacking.take_over(Reader(*mapped), writer.save()), ImageRefused);
  }
  std::filesystem::remove_all(folder());
}

TEST("an arena that was cleared is as new, in memory and in a file") {
  const std::string file = folder() + "/arena";
  std::filesystem::create_directories(folder());
  Arena memory(ARENA_BYTES), shared(file, ARENA_BYTES, true), fresh(ARENA_BYTES);
  format_graph(fresh, payments_spec(), "fingerprint", 1);
  Writer other(fresh);
  for (u32 batch = 0; batch < 5; ++batch) apply_batch(other, batch);
  for (Arena* arena : {&memory, &shared}) {
    {
      format_graph(*arena, payments_spec(), "fingerprint", 1);
      Writer writer(*arena);
      for (u32 batch = 0; batch < 20; ++batch) apply_batch(writer, batch);
    }
    arena->clear();
    format_graph(*arena, payments_spec(), "fingerprint", 1);
    Writer writer(*arena);
    for (u32 batch = 0; batch < 5; ++batch) apply_batch(writer, batch);
    CHECK_EQUAL(hash_of(writer), hash_of(other));
  }
  std::filesystem::remove_all(folder());
}
