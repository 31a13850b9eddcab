// The arena alone: slots of readers that died, limits of its size, and what the system refuses.
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdarg>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "spec.hpp"
#include "testing.hpp"

using namespace nowgraph;

namespace {

std::function<void()> after_lock_call;  // what another process does just after the arena has looked at a lock
std::vector<int> block_errors;          // what the next requests for blocks end with

std::string scratch_path(const char* name) {
  return std::filesystem::temp_directory_path() / ("nowgraph-" + std::to_string(::getpid()) + "-" + name);
}

struct ScratchFile {
  std::string path;
  explicit ScratchFile(const char* name) : path(scratch_path(name)) {}
  ~ScratchFile() { std::filesystem::remove(path); }
};

}  // namespace

// Stands before the C library's: the arena's own calls go through here.
extern "C" int fcntl(int fd, int command, ...) {
  va_list more;
  va_start(more, command);
  void* argument = va_arg(more, void*);
  va_end(more);
  const long result = ::syscall(SYS_fcntl, fd, command, argument);
  if (after_lock_call && (command == F_OFD_GETLK || command == F_OFD_SETLK)) {
    const auto act = std::move(after_lock_call);
    after_lock_call = nullptr;
    act();
  }
  return static_cast<int>(result);
}

extern "C" int posix_fallocate(int fd, off_t offset, off_t bytes) {
  if (block_errors.empty()) return ::syscall(SYS_fallocate, fd, 0, offset, bytes) == 0 ? 0 : errno;
  const int error = block_errors.back();
  block_errors.pop_back();
  return error;
}

TEST("a reader that takes the slot of one that died, while the writer frees it, stays pinned") {
  const ScratchFile file("slots.arena");
  Arena writer(file.path, u64{1} << 20, true);
  writer.format("slots", 1);
  {
    Arena dead(file.path, 0, false);
    dead.pin(dead.take_slot());
  }
  writer.header().epoch.fetch_add(1);
  Arena late(file.path, 0, false);
  u32 slot = NONE;
  after_lock_call = [&] {
    slot = late.take_slot();
    late.pin(slot);
  };
  writer.oldest_pinned(true);
  CHECK(slot != NONE);
  CHECK_EQUAL(writer.header().slots[slot].epoch.load(), u64{2});
  CHECK_EQUAL(writer.oldest_pinned(true), u64{2});
  late.free_slot(slot);
  CHECK_EQUAL(writer.oldest_pinned(true), UINT64_MAX);
  CHECK_EQUAL(writer.slots_taken(), 0u);
}

TEST("a file that is no arena is refused and not held open, however often it is tried") {
  const ScratchFile empty("empty.arena"), foreign("foreign.arena"), there("there.arena");
  std::ofstream(empty.path).flush();
  std::ofstream(foreign.path) << std::string(sizeof(ArenaHeader), 'x');
  Arena(there.path, u64{1} << 20, true).format("there", 1);
  const auto open_files = [] {
    const std::filesystem::directory_iterator files("/proc/self/fd");
    return std::distance(begin(files), end(files));
  };
  const auto before = open_files();
  CHECK_THROWS(Arena(empty.path, 0, false), ArenaRefused);
  CHECK_THROWS(Arena(foreign.path, 0, false), ArenaRefused);
  CHECK_THROWS(Arena(there.path, u64{1} << 20, true), ArenaRefused);
  CHECK_EQUAL(open_files(), before);
}

TEST("a signal while the file gets its blocks is no full disk; a full disk is one, and says so") {
  const ScratchFile file("blocks.arena");
  Arena arena(file.path, u64{64} << 20, true);
  block_errors = {EINTR, EINTR};
  arena.format("blocks", 1);
  CHECK(block_errors.empty());
  block_errors = {ENOSPC};
  CHECK_THROWS(arena.allocate(u64{32} << 20), ArenaFull);
  CHECK(arena.allocate(u64{32} << 20) > 0);
}

TEST("an arena larger than lists can point into is refused, and so is a table whose rows are too large for a version") {
  CHECK_THROWS(Arena(ARENA_BYTES_MAX + 1), ArenaRefused);
  for (const bool on_disk : {false, true}) {
    const ScratchFile columns("wide.columns");
    Arena arena(u64{64} << 20);
    arena.add_columns(columns.path, u64{16} << 20);
    GraphSpec spec;
    spec.tables.resize(1);
    spec.tables[0].name = "wide";
    spec.tables[0].columns_on_disk = on_disk;
    spec.tables[0].columns = {{"first", Kind::embedding, false, false, 65'536}};
    format_graph(arena, spec, "wide", 1);
    spec.tables[0].columns.push_back({"second", Kind::embedding, false, false, 65'536});
    if (on_disk)
      format_graph(arena, spec, "wide", 1);
    else
      CHECK_THROWS((format_graph(arena, spec, "wide", 1), 0), ArenaRefused);
  }
}
