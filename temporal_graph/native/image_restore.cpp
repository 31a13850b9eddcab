// A graph made of an image's file: its pages are read by several threads, each of which checks what it has read and then
// hands it on. While one waits for the disk, another hashes and copies.
//
//   disk ─► a thread's buffer: every page against its hash ─► Arena::fill
#include <atomic>
#include <cerrno>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "image.hpp"

namespace nowgraph {

namespace {

constexpr u64 PAGE_BYTES_MAX = u64{1} << 16;
constexpr u64 RUN_BYTES = u64{1} << 20;  // read at once: enough for the disk, and little enough to stay in a core's cache
constexpr u32 READERS = 3;

// An image's file: mapped for what stands at its end, read past the page cache for its pages. To map those as well would
// take a fault for each of them, and the place in the page cache of what readers ask for.
class ImageInput {
 public:
  explicit ImageInput(const std::string& path) : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) throw ImageRefused("cannot open image " + path + ": " + std::strerror(errno));
    past_cache_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);  // refused: through the cache
    struct stat info {};
    const bool found = ::fstat(fd_, &info) == 0;
    bytes_ = found ? static_cast<u64>(info.st_size) : 0;
    void* memory = bytes_ == 0 ? MAP_FAILED : ::mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, fd_, 0);
    if (memory != MAP_FAILED) {
      data_ = static_cast<const char*>(memory);
      return;
    }
    close();
    throw ImageRefused("cannot read image " + path);
  }
  ~ImageInput() {
    ::munmap(const_cast<char*>(data_), bytes_);
    close();
  }
  ImageInput(const ImageInput&) = delete;
  ImageInput& operator=(const ImageInput&) = delete;

  const char* data() const { return data_; }
  u64 bytes() const { return bytes_; }
  const std::string& path() const { return path_; }

  // Whole pages, at most RUN_BYTES, into a buffer of theirs; any thread.
  void read(u64 offset, u64 bytes, char* to) const {
    bool past = past_cache_ >= 0 && !cached(offset, bytes);
    while (bytes > 0) {
      const ssize_t got = ::pread(past ? past_cache_ : fd_, to, bytes, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EINVAL && past) {  // wants other sizes than our pages
        past = false;
        continue;
      }
      if (got <= 0) throw ImageRefused("cannot read image " + path_ + ": " + (got == 0 ? "it is cut off" : std::strerror(errno)));
      to += got;
      offset += static_cast<u64>(got);
      bytes -= static_cast<u64>(got);
    }
  }

 private:
  // Whether the page cache has all of it, as that of a file which was just downloaded.
  bool cached(u64 offset, u64 bytes) const {
    unsigned char there[RUN_BYTES / IMAGE_PAGE_BYTES];
    if (::mincore(const_cast<char*>(data_) + offset, bytes, there) != 0) return false;
    for (u64 page = 0; page < bytes / IMAGE_PAGE_BYTES; ++page)
      if ((there[page] & 1) == 0) return false;
    return true;
  }
  void close() const {
    ::close(fd_);
    if (past_cache_ >= 0) ::close(past_cache_);
  }

  std::string path_;
  int fd_, past_cache_ = -1;
  const char* data_ = nullptr;
  u64 bytes_ = 0;
};

// The parts of an image's file, checked but for the pages.
struct Parts {
  ImageFooter footer;
  std::string_view state;
  const char* hashes;  // u64 a page, the arena's first, unaligned

  u64 page_count(u64 bytes) const { return (bytes + footer.page_bytes - 1) / footer.page_bytes; }
  u64 hash(u64 page) const {
    u64 value;
    std::memcpy(&value, hashes + 8 * page, 8);
    return value;
  }
};

Parts parts_of(const ImageInput& file) {
  const std::string& path = file.path();
  Parts parts{};
  ImageFooter& footer = parts.footer;
  if (file.bytes() < sizeof footer) throw ImageRefused("image " + path + " is cut off");
  std::memcpy(&footer, file.data() + file.bytes() - sizeof footer, sizeof footer);
  if (std::memcmp(footer.magic, IMAGE_MAGIC, sizeof IMAGE_MAGIC) != 0)
    throw ImageRefused("image " + path + " is cut off, or no image");
  if (footer.footer_hash != hash_page(reinterpret_cast<const char*>(&footer), offsetof(ImageFooter, footer_hash)))
    throw ImageRefused("image " + path + " is damaged: its footer");
  if (footer.layout_version != LAYOUT_VERSION)
    throw ImageRefused("image " + path + " has layout " + std::to_string(footer.layout_version) + ", expected " +
                       std::to_string(LAYOUT_VERSION));
  // Pages were larger once; what an image says is what it has.
  if (footer.page_bytes < IMAGE_PAGE_BYTES || footer.page_bytes > PAGE_BYTES_MAX || footer.page_bytes % IMAGE_PAGE_BYTES != 0)
    throw ImageRefused("image " + path + " is damaged: pages of " + std::to_string(footer.page_bytes) + " bytes");
  const u64 pages = footer.page_count * footer.page_bytes;
  const u64 hash_bytes = 8 * (footer.page_count + parts.page_count(footer.columns_used));
  if (footer.used_bytes > pages ||
      file.bytes() != pages + footer.state_bytes + hash_bytes + sizeof footer)
    throw ImageRefused("image " + path + " is damaged: it has not the length that it says");
  parts.state = {file.data() + pages, footer.state_bytes};
  parts.hashes = file.data() + pages + footer.state_bytes;
  if (hash_page(parts.state.data(), footer.state_bytes) != footer.state_hash)
    throw ImageRefused("image " + path + " is damaged: the writer's state");
  if (hash_page(parts.hashes, hash_bytes) != footer.pages_hash)
    throw ImageRefused("image " + path + " is damaged: the hashes of its pages");
  return parts;
}

// Calls take(offset, data, bytes) for runs of `count` pages, each page checked against the hashes that begin at
// `first_hash`, on several threads at once. Throws what the first of them to fail threw.
template <class Take>
void each_run(const ImageInput& file, u64 count, const Parts& parts, u64 first_hash, Take take) {
  const u64 page_bytes = parts.footer.page_bytes, run_pages = RUN_BYTES / page_bytes;
  std::atomic<u64> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  const auto read = [&] {
    const PageMemory run = memory_for(RUN_BYTES / IMAGE_PAGE_BYTES);
    if (run == nullptr) throw ArenaFull("no memory to read image " + file.path());
    for (u64 first = next.fetch_add(run_pages); first < count; first = next.fetch_add(run_pages)) {
      const u64 pages = std::min(run_pages, count - first);
      file.read(first * page_bytes, pages * page_bytes, run.get());
      for (u64 i = 0; i < pages; ++i)
        if (hash_page(run.get() + i * page_bytes, page_bytes) != parts.hash(first_hash + first + i))
          throw ImageRefused("image " + file.path() + " is damaged: page " + std::to_string(first + i) + " of " +
                             std::to_string(count));
      take(first * page_bytes, run.get(), pages * page_bytes);
    }
  };
  const auto work = [&] {
    try {
      read();
    } catch (...) {
      next.store(count);  // nobody begins another
      const std::lock_guard<std::mutex> guard(mutex);
      if (failure == nullptr) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    try {
      while (others.size() + 1 < READERS) others.emplace_back(work);
    } catch (const std::system_error&) {  // no more threads: those that there are do it
    }
    work();
  }
  if (failure != nullptr) std::rethrow_exception(failure);
}

// Calls take(offset, data, bytes) for the pages of an image, each checked, and then take_column for those of its columns;
// on several threads at once.
template <class Take, class TakeColumn>
void each_run(const ImageInput& file, const Parts& parts, Take take, TakeColumn take_column) {
  const ImageFooter& footer = parts.footer;
  each_run(file, footer.page_count, parts, 0, take);
  if (footer.columns_used == 0) return;
  const ImageInput columns(columns_of_image(file.path()));
  const u64 pages = parts.page_count(footer.columns_used);
  if (columns.bytes() != pages * footer.page_bytes)
    throw ImageRefused("image " + columns.path() + " is damaged: it has not the length that it should have");
  each_run(columns, pages, parts, footer.page_count, take_column);
}

}  // namespace

std::string restore_image(Arena& arena, const std::string& path, std::string_view fingerprint, i64 generation) {
  const ImageInput file(path);
  const Parts parts = parts_of(file);
  const ImageFooter& footer = parts.footer;
  arena.make_room(footer.used_bytes, footer.columns_used);
  each_run(
      file, parts,
      [&](u64 offset, const char* from, u64 bytes) {
        if (offset < footer.used_bytes) arena.fill(offset, from, std::min(bytes, footer.used_bytes - offset));
      },
      [&](u64 offset, const char* from, u64 bytes) {
        if (arena.columns() != nullptr)
          std::memcpy(arena.columns_at(offset), from, std::min(bytes, footer.columns_used - offset));
      });
  arena.adopt(fingerprint, generation);
  return std::string(parts.state);
}

void verify_image(const std::string& path) {
  const ImageInput file(path);
  const Parts parts = parts_of(file);
  const auto nothing = [](u64, const char*, u64) {};
  each_run(file, parts, nothing, nothing);
}

}  // namespace nowgraph
