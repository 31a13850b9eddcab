// An arena's bytes in a file, and a graph made of them again. Its columns' file is copied into a file of its own beside
// it, `columns_of_image`, whose pages' hashes are in the image.
//
//   ImageWriter::copy, beside the writer: all pages; those that changed meanwhile, and again; those that change all the
//   time into memory
//   ─► settle, while it rests: what is left, into memory, and its own state ─► finish: what is in memory, the pages'
//   hashes, a footer ─► restore_image (image_restore.cpp): every page checked on its way into a fresh arena
//
// What is copied beside the writer may be torn. It does no harm: who writes marks the page afterwards, so it is copied
// again, at last while the writer rests. That takes as long as what changed last, however large the arena is.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "arena.hpp"
#include "kept_pages.hpp"

namespace nowgraph {

inline constexpr char IMAGE_MAGIC[8] = {'N', 'O', 'W', 'I', 'M', 'A', 'G', 'E'};

// The end of an image's file: whoever cannot read it has no whole image. Before it stand the arena's pages, the writer's
// state, and the hashes of the arena's pages and then of the columns'.
struct ImageFooter {
  char magic[8];
  u32 layout_version;
  u32 page_bytes;
  u64 used_bytes;
  u64 page_count;    // of the arena
  u64 columns_used;  // 0: no columns' file
  u64 state_bytes;
  u64 state_hash;
  u64 pages_hash;  // of the pages' hashes
  i64 generation;
  u64 footer_hash;  // of all before it
};

// Not cryptographic: it finds damage, not forgery.
u64 hash_page(const char* data, u64 bytes);

// A file in the making, and the hashes of its pages.
class ImageFile {
 public:
  explicit ImageFile(const std::string& path);
  ~ImageFile() { ::close(fd_); }
  ImageFile(const ImageFile&) = delete;
  ImageFile& operator=(const ImageFile&) = delete;

  // Past the page cache from now on, where the file system can: copying then takes no time and no memory for it. Only
  // whole pages from a buffer of theirs may be written.
  void write_past_cache(bool past) const;
  void write_pages(u64 first, u64 count, const char* data);
  void write_at(const void* data, u64 bytes, u64 offset) const;
  void sync() const;
  const std::string& path() const { return path_; }
  std::vector<u64>& hashes() { return hashes_; }
  const std::vector<u64>& hashes() const { return hashes_; }

 private:
  std::string path_;
  int fd_;
  std::vector<u64> hashes_;
};

class ImageWriter {
 public:
  // Makes the files; ArenaRefused where it cannot, or where they are there already.
  ImageWriter(const Arena& arena, const std::string& path);
  ImageWriter(const ImageWriter&) = delete;
  ImageWriter& operator=(const ImageWriter&) = delete;

  // Writes the arena as it is now, and again what changed meanwhile, until that is little or as much each time; any
  // thread, and again before settle if that has to wait. `bytes_per_s` bounds what the first pass takes from others, 0:
  // nothing does; the later ones, of what changed, go as fast as they can: the longer one takes the more the next has.
  void copy(u64 bytes_per_s);
  // Ends `copy` at the next page; the image is to be thrown away. Any thread.
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  // Writes what changed since, and the writer's state; the writer must rest. Returns the number of pages written.
  u64 settle(std::string state);
  // Writes hashes and footer and waits for the disk; any thread.
  void finish();
  // Pages of the arena that are not as they were written, while the writer rests after `settle`: 0, unless it wrote
  // somewhere without saying so.
  u64 differing() const;

  u64 bytes() const { return arena_used_ + columns_used_; }

 private:
  u64 used(bool columns) const {
    const ArenaHeader& head = arena_.header();
    return (columns ? head.columns_used : head.used).load(std::memory_order_relaxed);
  }
  void read(bool columns, u64 first, u64 count, char* to) const;
  template <class Each>
  u64 take(bool columns, Each each);
  template <class Each>
  u64 take(Each each);
  u64 keep(u64 end);
  void write_kept();
  void write_past_cache(bool past) const;
  u64 waiting() const;

  const Arena& arena_;
  ImageFile graph_;
  std::unique_ptr<ImageFile> columns_;  // where the arena has a columns' file
  std::atomic<bool> cancelled_{false};
  u64 arena_used_ = 0;
  u64 columns_used_ = 0;
  PageMemory run_;
  KeptPages kept_;  // of the arena
  std::string state_;
  i64 generation_ = 0;
};

// Fills a fresh arena with an image and returns the state of the writer that made it; whether its tables are those of a
// schema is for `take_spec` to say; one without columns on disk has no use for those of the image. ImageRefused for a file that is damaged, cut off or of another layout; ArenaFull where
// the arena is too small for it.
std::string restore_image(Arena& arena, const std::string& path, std::string_view fingerprint, i64 generation);

// Checks every page of an image's file without an arena; ImageRefused where one is damaged.
void verify_image(const std::string& path);

// ---- the writer's state ----------------------------------------------------------------------------------------------

class StateOut {
 public:
  template <class T>
  void put(const T& value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <class T>
  void put_all(const std::vector<T>& values) {
    put<u64>(values.size());
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  std::string bytes;
};

class StateIn {
 public:
  explicit StateIn(std::string_view bytes) : rest_(bytes) {}
  template <class T>
  T take() {
    T value;
    std::memcpy(&value, next(sizeof value), sizeof value);
    return value;
  }
  template <class T>
  std::vector<T> take_all() {
    const u64 count = take<u64>();
    if (count > rest_.size() / sizeof(T)) throw ImageRefused("the image's state ends too soon");
    std::vector<T> values(count);
    if (count > 0) std::memcpy(values.data(), next(count * sizeof(T)), count * sizeof(T));
    return values;
  }
  bool done() const { return rest_.empty(); }

 private:
  const char* next(u64 bytes) {
    if (bytes > rest_.size()) throw ImageRefused("the image's state ends too soon");
    const char* at = rest_.data();
    rest_.remove_prefix(bytes);
    return at;
  }
  std::string_view rest_;
};

}  // namespace nowgraph
