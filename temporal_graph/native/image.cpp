#include "image.hpp"

#include <cerrno>
#include <chrono>
#include <thread>

namespace nowgraph {

namespace {

// The page as it is while the writer may be writing it: a copy that may be torn, which settle finds out.
#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize("thread"))) void copy_torn(char* to, const char* from, u64 bytes) {
  const auto* words = reinterpret_cast<const volatile u64*>(from);
  for (u64 i = 0; i < bytes / 8; ++i) reinterpret_cast<volatile u64*>(to)[i] = words[i];
}
#else
void copy_torn(char* to, const char* from, u64 bytes) { std::memcpy(to, from, bytes); }
#endif

// The slots of readers are no part of a graph: pages of the header are kept without them. `data` is what lies at `offset`.
void clear_slots(char* data, u64 offset, u64 bytes) {
  const u64 from = std::max<u64>(offset, offsetof(ArenaHeader, slots));
  const u64 until = std::min<u64>(offset + bytes, offsetof(ArenaHeader, slots) + sizeof ArenaHeader::slots);
  if (from < until) std::memset(data + (from - offset), 0, until - from);
}

constexpr u64 PAGE_BYTES_MAX = u64{1} << 16;
constexpr u64 RUN_PAGES = (u64{1} << 20) / IMAGE_PAGE_BYTES;  // written at once: enough for the disk to be busy with
constexpr u64 GAP_PAGES = 8;  // between two changed pages so few are written with them: a disk counts writes, not bytes
constexpr u64 FEW_PAGES = (u64{8} << 20) / IMAGE_PAGE_BYTES;  // the writer rests some milliseconds for so many
// What may be kept in memory: as much, and such a share of the graph.
constexpr u64 KEPT_PAGES_MAX = (u64{512} << 20) / IMAGE_PAGE_BYTES;
constexpr u64 KEPT_SHARE = 4;

// Sleeps so that what is copied stays under a rate.
class Pace {
 public:
  explicit Pace(u64 bytes_per_s) : bytes_per_s_(bytes_per_s) {}
  void took(u64 pages) {
    bytes_ += pages * IMAGE_PAGE_BYTES;
    if (bytes_per_s_ == 0) return;
    const double due_s = static_cast<double>(bytes_) / static_cast<double>(bytes_per_s_);
    std::this_thread::sleep_until(start_ + std::chrono::microseconds(static_cast<i64>(due_s * 1e6)));
  }

 private:
  u64 bytes_per_s_;
  u64 bytes_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// A file mapped for reading, from end to end.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) throw ImageRefused("cannot open image " + path + ": " + std::strerror(errno));
    struct stat info {};
    const bool found = ::fstat(fd, &info) == 0;
    bytes_ = found ? static_cast<u64>(info.st_size) : 0;
    void* memory = bytes_ == 0 ? MAP_FAILED : ::mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, fd, 0);
    ::close(fd);
    if (memory == MAP_FAILED) throw ImageRefused("cannot read image " + path);
    data_ = static_cast<const char*>(memory);
    ::madvise(memory, bytes_, MADV_SEQUENTIAL);
    read_ahead(0);
  }
  ~MappedFile() { ::munmap(const_cast<char*>(data_), bytes_); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const char* data() const { return data_; }
  u64 bytes() const { return bytes_; }

  // Has the disk read on while what is before `at` is worked on; to be called as `at` moves from begin to end. The kernel
  // by itself reads a little ahead of each fault, and of one large wish only the beginning.
  void read_ahead(u64 at) const {
    for (const u64 until = std::min(bytes_, at + READ_AHEAD_BYTES); asked_ < until; asked_ += READ_CHUNK_BYTES)
      ::madvise(const_cast<char*>(data_) + asked_, std::min(READ_CHUNK_BYTES, bytes_ - asked_), MADV_WILLNEED);
  }

 private:
  static constexpr u64 READ_AHEAD_BYTES = u64{32} << 20;
  static constexpr u64 READ_CHUNK_BYTES = u64{512} << 10;

  mutable u64 asked_ = 0;
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

Parts parts_of(const MappedFile& file, const std::string& path) {
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

// Calls take(offset, data, bytes) for `count` pages, each checked against the hashes that begin at `first_hash`.
template <class Take>
void each_page(const MappedFile& file, u64 count, const Parts& parts, u64 first_hash, const std::string& path, Take take) {
  for (u64 page = 0; page < count; ++page) {
    const u64 bytes = parts.footer.page_bytes, offset = page * bytes;
    file.read_ahead(offset);
    if (hash_page(file.data() + offset, bytes) != parts.hash(first_hash + page))
      throw ImageRefused("image " + path + " is damaged: page " + std::to_string(page) + " of " + std::to_string(count));
    take(offset, file.data() + offset, bytes);
  }
}

// Calls take(offset, data, bytes) for the pages of an image, each checked, and then take_column for those of its columns.
template <class Take, class TakeColumn>
void each_page(const MappedFile& file, const Parts& parts, const std::string& path, Take take, TakeColumn take_column) {
  const ImageFooter& footer = parts.footer;
  each_page(file, footer.page_count, parts, 0, path, take);
  if (footer.columns_used == 0) return;
  const std::string beside = columns_of_image(path);
  const MappedFile columns(beside);
  const u64 pages = parts.page_count(footer.columns_used);
  if (columns.bytes() != pages * footer.page_bytes)
    throw ImageRefused("image " + beside + " is damaged: it has not the length that it should have");
  each_page(columns, pages, parts, footer.page_count, beside, take_column);
}

}  // namespace

ImageWriter::ImageWriter(const Arena& arena, const std::string& path)
    : arena_(arena), graph_(path), run_(memory_for(RUN_PAGES)) {
  if (run_ == nullptr) throw ArenaFull("no memory to make image " + path);
  if (arena.columns() != nullptr) columns_ = std::make_unique<ImageFile>(columns_of_image(path));
}

// Pages as they are now, without the slots of readers.
void ImageWriter::read(bool columns, u64 first, u64 count, char* to) const {
  const u64 offset = first * IMAGE_PAGE_BYTES, bytes = count * IMAGE_PAGE_BYTES;
  const u64 there = std::min(bytes, (columns ? arena_.columns()->bytes() : arena_.bytes()) - offset);
  if (columns)
    arena_.columns()->read(offset, there, to);
  else
    copy_torn(to, arena_.at<char>(offset), there);
  std::memset(to + there, 0, bytes - there);
  if (!columns) clear_slots(to, offset, bytes);
}

// Writes the pages that are marked and those that were never written, in runs; each(pages) is called after each of them.
template <class Each>
u64 ImageWriter::take(bool columns, Each each) {
  const PageMarks& marks = columns ? arena_.columns()->marks() : arena_.marks();
  ImageFile& file = columns ? *columns_ : graph_;
  const u64 end = pages_of(used(columns)), known = std::min<u64>(file.hashes().size(), end);
  const auto wanted = [&](u64 page) { return marks.take(page) || (page >= known && (columns || !kept_.has(page))); };
  u64 taken = 0;
  for (u64 first = marks.next(0, known); first < end; first = first < known ? marks.next(first, known) : first) {
    u64 until = first;
    for (u64 page = first; page < end && page - first < RUN_PAGES && page - until < GAP_PAGES; ++page)
      if (wanted(page)) until = page + 1;
    if (until > first) {
      read(columns, first, until - first, run_.get());
      file.write_pages(first, until - first, run_.get());
      taken += until - first;
      each(until - first);
    }
    first = std::max(until, first + 1);
  }
  return taken;
}

// Copies what is marked of the arena into memory as far as there is room; returns the pages.
u64 ImageWriter::keep() {
  const PageMarks& marks = arena_.marks();
  const u64 end = pages_of(used(false));
  u64 kept = 0;
  for (u64 page = marks.next(0, end); page < end; page = marks.next(page + 1, end)) {
    if (!kept_.has(page) && kept_.full()) continue;
    marks.take(page);
    read(false, page, 1, kept_.place(page));
    ++kept;
  }
  return kept;
}

// In runs, as take does.
void ImageWriter::write_kept() {
  const std::vector<u64> pages = kept_.pages();
  for (u64 i = 0; i < pages.size();) {
    u64 count = 0;
    do {
      std::memcpy(run_.get() + count * IMAGE_PAGE_BYTES, kept_.at(pages[i]), IMAGE_PAGE_BYTES);
      ++i, ++count;
    } while (i < pages.size() && count < RUN_PAGES && pages[i] == pages[i - 1] + 1);
    graph_.write_pages(pages[i - 1] + 1 - count, count, run_.get());
  }
}

template <class Each>
u64 ImageWriter::take(Each each) {
  return take(false, each) + (columns_ == nullptr ? 0 : take(true, each));
}

// Pages that `take` would write now.
u64 ImageWriter::waiting() const {
  const auto of = [&](const PageMarks& marks, const ImageFile& file, u64 pages) {
    const u64 known = std::min<u64>(file.hashes().size(), pages);
    return marks.count(known) + pages - known;
  };
  const u64 pages = of(arena_.marks(), graph_, pages_of(used(false)));
  return columns_ == nullptr ? pages : pages + of(arena_.columns()->marks(), *columns_, pages_of(used(true)));
}

void ImageWriter::copy(u64 bytes_per_s) {
  Pace pace(bytes_per_s);
  const auto each = [&](u64 pages) {
    if (cancelled_.load(std::memory_order_relaxed)) throw ArenaRefused("image " + graph_.path() + " was given up");
    pace.took(pages);
  };
  const auto shrinks = [](u64 left, u64 before) { return left < before / 4 * 3; };
  for (const u64 page : kept_.pages()) arena_.written(arena_.at<char>(page * IMAGE_PAGE_BYTES));  // of the time before
  kept_ = {};
  graph_.write_past_cache(true);
  if (columns_ != nullptr) columns_->write_past_cache(true);
  take(each);
  const u64 room = std::min(KEPT_PAGES_MAX, pages_of(used(false)) / KEPT_SHARE);
  for (u64 before = UINT64_MAX, left = waiting(); left > room / 4 * 3 && shrinks(left, before); left = waiting()) {
    take(each);
    before = left;
  }
  graph_.write_past_cache(false);
  if (columns_ != nullptr) columns_->write_past_cache(false);
  kept_.make_room(std::min(room, 2 * waiting() + 4 * FEW_PAGES));
  for (u64 before = UINT64_MAX, left = waiting(); left > FEW_PAGES && left <= room && shrinks(left, before); left = waiting()) {
    keep();
    before = left;
  }
}

u64 ImageWriter::settle(std::string state) {
  state_ = std::move(state);
  arena_.written(&arena_.header(), sizeof(ArenaHeader));
  arena_used_ = used(false);
  columns_used_ = used(true);
  generation_ = arena_.header().generation;
  const u64 kept = keep();
  return kept + take([](u64) {});
}

u64 ImageWriter::differing() const {
  std::vector<char> page(IMAGE_PAGE_BYTES);
  u64 differing = 0;
  for (const bool columns : {false, true}) {
    if (columns && columns_ == nullptr) break;
    const std::vector<u64>& hashes = (columns ? *columns_ : graph_).hashes();
    for (u64 i = 0; i < hashes.size(); ++i) {
      read(columns, i, 1, page.data());
      const bool kept = !columns && kept_.has(i);
      differing += kept ? std::memcmp(page.data(), kept_.at(i), IMAGE_PAGE_BYTES) != 0
                        : hash_page(page.data(), IMAGE_PAGE_BYTES) != hashes[i];
    }
  }
  return differing;
}

void ImageWriter::finish() {
  write_kept();
  std::vector<u64>& hashes = graph_.hashes();
  ImageFooter footer{};
  std::memcpy(footer.magic, IMAGE_MAGIC, sizeof IMAGE_MAGIC);
  footer.layout_version = LAYOUT_VERSION;
  footer.page_bytes = IMAGE_PAGE_BYTES;
  footer.used_bytes = arena_used_;
  footer.page_count = hashes.size();
  footer.columns_used = columns_used_;
  footer.state_bytes = state_.size();
  footer.state_hash = hash_page(state_.data(), state_.size());
  if (columns_ != nullptr) {
    hashes.insert(hashes.end(), columns_->hashes().begin(), columns_->hashes().end());
    columns_->sync();
  }
  footer.pages_hash = hash_page(reinterpret_cast<const char*>(hashes.data()), 8 * hashes.size());
  footer.generation = generation_;
  footer.footer_hash = hash_page(reinterpret_cast<const char*>(&footer), offsetof(ImageFooter, footer_hash));
  u64 offset = footer.page_count * IMAGE_PAGE_BYTES;
  graph_.write_at(state_.data(), state_.size(), offset);
  offset += state_.size();
  graph_.write_at(hashes.data(), 8 * hashes.size(), offset);
  graph_.write_at(&footer, sizeof footer, offset + 8 * hashes.size());
  graph_.sync();
}

std::string restore_image(Arena& arena, const std::string& path, std::string_view fingerprint, i64 generation) {
  const MappedFile file(path);
  const Parts parts = parts_of(file, path);
  const ImageFooter& footer = parts.footer;
  arena.make_room(footer.used_bytes, footer.columns_used);
  each_page(
      file, parts, path,
      [&](u64 offset, const char* from, u64 bytes) {
        std::memcpy(arena.at<char>(offset), from, std::min(bytes, footer.used_bytes - offset));
      },
      [&](u64 offset, const char* from, u64 bytes) {
        if (arena.columns() != nullptr)
          std::memcpy(arena.columns_at(offset), from, std::min(bytes, footer.columns_used - offset));
      });
  arena.adopt(fingerprint, generation);
  return std::string(parts.state);
}

void verify_image(const std::string& path) {
  const MappedFile file(path);
  const Parts parts = parts_of(file, path);
  const auto nothing = [](u64, const char*, u64) {};
  each_page(file, parts, path, nothing, nothing);
}

}  // namespace nowgraph
