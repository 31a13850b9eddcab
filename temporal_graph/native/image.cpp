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

NOWGRAPH_INLINE u64 fold(u64 a, u64 b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<u64>(product) ^ static_cast<u64>(product >> 64);
}

// The slots of readers are no part of a graph: a page of the header is kept without them.
void clear_slots(char* header) {
  auto* head = reinterpret_cast<ArenaHeader*>(header);
  std::memset(static_cast<void*>(head->slots), 0, sizeof head->slots);
}
static_assert(sizeof(ArenaHeader) <= IMAGE_PAGE_BYTES);

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
  const u64 pages = footer.page_count * IMAGE_PAGE_BYTES;
  const u64 hash_bytes = 8 * (footer.page_count + pages_of(footer.columns_used));
  if (footer.page_bytes != IMAGE_PAGE_BYTES || footer.used_bytes > pages ||
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

// Calls take(page, data) for `count` pages, each checked against the hashes that begin at `first_hash`.
template <class Take>
void each_page(const MappedFile& file, u64 count, const Parts& parts, u64 first_hash, const std::string& path, Take take) {
  for (u64 page = 0; page < count; ++page) {
    file.read_ahead(page * IMAGE_PAGE_BYTES);
    const char* data = file.data() + page * IMAGE_PAGE_BYTES;
    if (hash_page(data, IMAGE_PAGE_BYTES) != parts.hash(first_hash + page))
      throw ImageRefused("image " + path + " is damaged: page " + std::to_string(page) + " of " + std::to_string(count));
    take(page, data);
  }
}

// Calls take(page, data) for the pages of an image, each checked, and then take_column for those of its columns.
template <class Take, class TakeColumn>
void each_page(const MappedFile& file, const Parts& parts, const std::string& path, Take take, TakeColumn take_column) {
  const ImageFooter& footer = parts.footer;
  each_page(file, footer.page_count, parts, 0, path, take);
  if (footer.columns_used == 0) return;
  const std::string beside = columns_of_image(path);
  const MappedFile columns(beside);
  const u64 pages = pages_of(footer.columns_used);
  if (columns.bytes() != pages * IMAGE_PAGE_BYTES)
    throw ImageRefused("image " + beside + " is damaged: it has not the length that it should have");
  each_page(columns, pages, parts, footer.page_count, beside, take_column);
}

}  // namespace

// Four lanes of folded products over 64 bytes a turn, in the manner of wyhash: a page a few microseconds.
u64 hash_page(const char* data, u64 bytes) {
  constexpr u64 SALT[4] = {0xA0761D6478BD642Full, 0xE7037ED1A0B428DBull, 0x8EBC6AF09C88C6E3ull, 0x589965CC75374CC3ull};
  u64 lanes[4] = {SALT[0] ^ bytes, SALT[1], SALT[2], SALT[3]};
  u64 at = 0;
  for (; at + 64 <= bytes; at += 64)
    for (int lane = 0; lane < 4; ++lane)
      lanes[lane] = fold(load<u64>(data + at + 16 * lane) ^ SALT[lane],
                         load<u64>(data + at + 16 * lane + 8) ^ lanes[lane]);
  u64 hash = fold(lanes[0] ^ lanes[1], SALT[0]) ^ fold(lanes[2] ^ lanes[3], SALT[1]) ^ fold(lanes[1] ^ lanes[2], SALT[2]);
  for (; at < bytes; at += 8) {
    u64 word = 0;
    std::memcpy(&word, data + at, std::min<u64>(8, bytes - at));
    hash = mix64(hash ^ word);
  }
  return mix64(hash);
}

ImageFile::ImageFile(const std::string& path)
    : path_(path), fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) {
  if (fd_ < 0) throw ArenaRefused("cannot make image " + path + ": " + std::strerror(errno));
}

void ImageFile::write_at(const void* data, u64 bytes, u64 offset) const {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::pwrite(fd_, from, bytes, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw ArenaRefused("cannot write image " + path_ + ": " + std::strerror(errno));
    from += written;
    offset += static_cast<u64>(written);
    bytes -= static_cast<u64>(written);
  }
}

void ImageFile::write_page(u64 page, const char* data) {
  if (hashes_.size() <= page) hashes_.resize(page + 1);
  hashes_[page] = hash_page(data, IMAGE_PAGE_BYTES);
  write_at(data, IMAGE_PAGE_BYTES, page * IMAGE_PAGE_BYTES);
}

void ImageFile::sync() const {
  if (::fsync(fd_) != 0) throw ArenaRefused("cannot write image " + path_ + ": " + std::strerror(errno));
}

ImageWriter::ImageWriter(const Arena& arena, const std::string& path)
    : arena_(arena), graph_(path), page_(IMAGE_PAGE_BYTES) {
  if (arena.columns() != nullptr) columns_ = std::make_unique<ImageFile>(columns_of_image(path));
}

void ImageWriter::take_page(u64 page) {
  const u64 offset = page * IMAGE_PAGE_BYTES;
  const u64 there = std::min(IMAGE_PAGE_BYTES, arena_.bytes() - offset);
  copy_torn(page_.data(), arena_.at<char>(offset), there);
  if (there < IMAGE_PAGE_BYTES) std::memset(page_.data() + there, 0, IMAGE_PAGE_BYTES - there);
  if (page == 0) clear_slots(page_.data());
  graph_.write_page(page, page_.data());
}

void ImageWriter::take_column_page(u64 page) {
  arena_.columns()->unmark(page);
  arena_.columns()->read_page(page, page_.data());
  columns_->write_page(page, page_.data());
}

void ImageWriter::copy(u64 bytes_per_s) {
  const ArenaHeader& head = arena_.header();
  const u64 pages = pages_of(head.used.load(std::memory_order_relaxed));
  const u64 column_pages = pages_of(head.columns_used.load(std::memory_order_relaxed));
  graph_.hashes().reserve(pages + pages / 16);
  const auto start = std::chrono::steady_clock::now();
  for (u64 page = 0; page < pages + column_pages; ++page) {
    if (cancelled_.load(std::memory_order_relaxed)) throw ArenaRefused("image " + graph_.path() + " was given up");
    if (page < pages)
      take_page(page);
    else
      take_column_page(page - pages);
    if (bytes_per_s == 0 || page % 16 != 0) continue;
    const double due_s = static_cast<double>((page + 1) * IMAGE_PAGE_BYTES) / static_cast<double>(bytes_per_s);
    std::this_thread::sleep_until(start + std::chrono::microseconds(static_cast<i64>(due_s * 1e6)));
  }
}

u64 ImageWriter::settle(std::string state) {
  state_ = std::move(state);
  const ArenaHeader& head = arena_.header();
  arena_used_ = head.used.load(std::memory_order_relaxed);
  columns_used_ = head.columns_used.load(std::memory_order_relaxed);
  generation_ = head.generation;
  u64 written = 0;
  for (u64 page = 0; page < pages_of(arena_used_); ++page) {
    const u64 offset = page * IMAGE_PAGE_BYTES;
    const bool whole = offset + IMAGE_PAGE_BYTES <= arena_.bytes();
    // Page 0 has the readers' slots, which move on while the writer rests.
    if (page > 0 && page < graph_.hashes().size() && whole &&
        hash_page(arena_.at<char>(offset), IMAGE_PAGE_BYTES) == graph_.hashes()[page])
      continue;
    take_page(page);
    ++written;
  }
  // Cells do not change once they are there: no pass over the disk.
  for (u64 page = 0; page < pages_of(columns_used_); ++page) {
    if (page < columns_->hashes().size() && !arena_.columns()->unmark(page)) continue;
    take_column_page(page);
    ++written;
  }
  return written;
}

void ImageWriter::finish() {
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
      [&](u64 page, const char* from) {
        const u64 offset = page * IMAGE_PAGE_BYTES;
        std::memcpy(arena.at<char>(offset), from, std::min(IMAGE_PAGE_BYTES, footer.used_bytes - offset));
      },
      [&](u64 page, const char* from) {
        const u64 offset = page * IMAGE_PAGE_BYTES;
        if (arena.columns() != nullptr)
          std::memcpy(arena.columns_at(offset), from, std::min(IMAGE_PAGE_BYTES, footer.columns_used - offset));
      });
  arena.adopt(fingerprint, generation);
  return std::string(parts.state);
}

void verify_image(const std::string& path) {
  const MappedFile file(path);
  const Parts parts = parts_of(file, path);
  const auto nothing = [](u64, const char*) {};
  each_page(file, parts, path, nothing, nothing);
}

}  // namespace nowgraph
