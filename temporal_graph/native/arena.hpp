// One arena addressed by offsets: anonymous memory in one process, a pre-sized sparse file mapped by several. The cells of
// tables whose columns lie on disk are in a second file, which belongs to it (columns.hpp).
//
// The concurrency contract, in three parts:
//   callers promise    one writer; every reader pins before it follows an offset and unpins soon after; no offset
//                      outlives its pin.
//   we guarantee       what a pinned reader can reach stays as it was; nobody waits for anybody; a reader that died
//                      frees its slot by itself.
//   how                the writer fills memory, then publishes it with a release store; a block that is replaced is
//                      retired with the current epoch and reused only when every pinned epoch is later.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "columns.hpp"

namespace nowgraph {

inline constexpr u32 READER_SLOTS = 256;
inline constexpr u32 LAYOUT_VERSION = 4;
inline constexpr u64 ARENA_BYTES_MAX = u64{1} << 41;  // what a list's word can point at: 36 bits of 32 bytes
inline constexpr char ARENA_MAGIC[8] = {'N', 'O', 'W', 'G', 'R', 'A', 'P', 'H'};

struct alignas(64) ReaderSlot {
  std::atomic<u64> epoch;  // 0: not pinned
  std::atomic<u32> taken;  // only for anonymous memory: in a file the slot's lock tells
};

struct ArenaHeader {
  char magic[8];
  u32 layout_version;
  u32 reserved;
  u64 bytes;
  char fingerprint[64];
  i64 generation;
  std::atomic<u64> used;
  std::atomic<u64> epoch;
  u64 columns_bytes;  // 0: no table's columns lie on disk
  u64 columns_stamp;
  std::atomic<u64> columns_used;
  u64 graph_offset;  // of GraphHeader in layout.hpp
  ReaderSlot slots[READER_SLOTS];
};

class Arena {
 public:
  // Anonymous memory of this process.
  explicit Arena(u64 bytes) {
    map(bytes, -1, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    mark_writes();
  }

  // A file: made and sized by the writer (create), mapped by readers, with the file of its columns where it has one.
  Arena(const std::string& path, u64 bytes, bool create, const std::string& columns = {}) : Arena() {
    path_ = path;
    fd_ = ::open(path.c_str(), create ? O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC : O_RDWR | O_CLOEXEC, 0600);
    if (fd_ < 0) throw ArenaRefused("cannot open arena " + path + ": " + std::strerror(errno));
    if (create) {
      if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0) throw ArenaRefused("cannot size arena " + path);
    } else {
      struct stat info {};
      if (::fstat(fd_, &info) != 0 || static_cast<u64>(info.st_size) < sizeof(ArenaHeader))
        throw ArenaRefused("not an arena: " + path);
      bytes = static_cast<u64>(info.st_size);
    }
    map(bytes, fd_, MAP_SHARED);
    if (create) {
      mark_writes();
      return;
    }
    verify();
    if (header().columns_bytes != 0)
      hold(std::make_unique<ColumnFile>(columns, header().columns_bytes, header().columns_stamp));
  }

  // The memory that an image's file holds, to be read; what is written here stays here.
  static std::unique_ptr<Arena> of_image(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info {};
    if (fd < 0 || ::fstat(fd, &info) != 0) throw ImageRefused("cannot open image " + path + ": " + std::strerror(errno));
    auto arena = std::unique_ptr<Arena>(new Arena);
    try {
      arena->map(static_cast<u64>(info.st_size), fd, MAP_PRIVATE | MAP_NORESERVE);
    } catch (...) {
      ::close(fd);
      throw;
    }
    ::close(fd);
    if (arena->bytes_ >= sizeof(ArenaHeader) && arena->header().columns_used.load() != 0)
      arena->hold(std::make_unique<ColumnFile>(columns_of_image(path)));
    return arena;
  }

  ~Arena() {
    if (base_ != nullptr) ::munmap(base_, bytes_);
    if (fd_ >= 0) ::close(fd_);
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  ArenaHeader& header() const { return *reinterpret_cast<ArenaHeader*>(base_); }
  template <class T>
  NOWGRAPH_INLINE T* at(u64 offset) const {
    return reinterpret_cast<T*>(base_ + offset);
  }
  // In the file of columns; there must be one.
  NOWGRAPH_INLINE char* columns_at(u64 offset) const { return columns_base_ + offset; }
  ColumnFile* columns() const { return columns_.get(); }
  u64 bytes() const { return bytes_; }
  bool shared() const { return fd_ >= 0; }
  const std::string& path() const { return path_; }

  // ---- writer -----------------------------------------------------------------------------------------------------

  // Gives a fresh arena a new file for columns.
  void add_columns(const std::string& path, u64 bytes) { hold(std::make_unique<ColumnFile>(path, bytes)); }

  void format(std::string_view fingerprint, i64 generation) {
    ArenaHeader& head = header();
    backed_ = 0;
    back(sizeof(ArenaHeader));
    std::memcpy(head.magic, ARENA_MAGIC, sizeof ARENA_MAGIC);
    head.layout_version = LAYOUT_VERSION;
    head.bytes = bytes_;
    name(fingerprint);
    head.generation = generation;
    head.epoch.store(1);
    head.used.store((sizeof(ArenaHeader) + 4095) & ~u64{4095});
    head.columns_used.store(columns_ == nullptr ? 0 : COLUMNS_START);
    stamp_columns();
  }

  // Zeroes all of it, as it was when it was made.
  void clear() {
    const bool cleared = shared() ? ::ftruncate(fd_, 0) == 0 && ::ftruncate(fd_, static_cast<off_t>(bytes_)) == 0
                                  : ::madvise(base_, bytes_, MADV_DONTNEED) == 0;
    if (!cleared) throw ArenaRefused("cannot clear the arena " + path_);
    if (columns_ != nullptr) columns_->clear();
  }

  // Room for an image that is about to be filled in; `adopt` then makes it this arena's own.
  void make_room(u64 bytes, u64 columns_bytes) {
    if (bytes > bytes_)
      throw ArenaFull("an arena of " + std::to_string(bytes_) + " bytes is too small for an image of " +
                      std::to_string(bytes));
    backed_ = bytes;  // once it is filled
    if (columns_ == nullptr) return;
    if (columns_bytes > columns_->bytes())
      throw ArenaFull("a columns' file of " + std::to_string(columns_->bytes()) + " bytes is too small for those of an image, " +
                      std::to_string(columns_bytes));
    columns_->back(columns_bytes);
  }
  // Bytes of an image, on any thread. A file is written to, not touched: a fault and zeros for each page cost more than the copy.
  void fill(u64 offset, const char* from, u64 bytes) const {
    if (shared())
      write_file(fd_, path_, from, bytes, offset);
    else
      std::memcpy(base_ + offset, from, bytes);
  }
  void adopt(std::string_view fingerprint, i64 generation) {
    ArenaHeader& head = header();
    head.bytes = bytes_;
    name(fingerprint);
    head.generation = generation;
    for (ReaderSlot& slot : head.slots) {
      slot.epoch.store(0);
      slot.taken.store(0);
    }
    stamp_columns();
  }

  // New bytes, zeroed, aligned to 64 when they are that large and to 32 otherwise.
  u64 allocate(u64 bytes) {
    const u64 align = bytes >= 64 ? 64 : 32;
    ArenaHeader& head = header();
    const u64 start = (head.used.load(std::memory_order_relaxed) + align - 1) & ~(align - 1);
    if (start + bytes > bytes_) throw ArenaFull("arena of " + std::to_string(bytes_) + " bytes is full");
    back(start + bytes);
    head.used.store(start + bytes, std::memory_order_relaxed);
    return start;
  }
  // Says that bytes were written: after they were, and before the writer rests for an image. What nobody said, no image has.
  NOWGRAPH_INLINE void written(const void* at, u64 bytes) const { marks_.mark(offset_of(at), bytes); }
  // A word that is aligned by its size. Of what is written for each event, no page's end is looked for.
  NOWGRAPH_INLINE void written(const void* at) const { marks_.mark_word(offset_of(at)); }
  const PageMarks& marks() const { return marks_; }
  u64 free_bytes() const { return bytes_ - header().used.load(std::memory_order_relaxed); }

  // New bytes in the file of columns, aligned to 64.
  u64 allocate_columns(u64 bytes) {
    ensure_columns(bytes + 63);
    ArenaHeader& head = header();
    const u64 start = (head.columns_used.load(std::memory_order_relaxed) + 63) & ~u64{63};
    head.columns_used.store(start + bytes, std::memory_order_relaxed);
    return start;
  }
  // Makes sure that so many more bytes of columns have blocks on the disk; ArenaFull where they have not.
  void ensure_columns(u64 bytes) {
    const u64 until = header().columns_used.load(std::memory_order_relaxed) + bytes;
    if (until > columns_->bytes())
      throw ArenaFull("the columns' file of " + std::to_string(columns_->bytes()) + " bytes, " + columns_->path() +
                      ", is full");
    columns_->back(until);
  }

  // The oldest epoch that a reader is pinned to; UINT64_MAX when none is. A slot of a file arena whose lock nobody
  // holds belonged to a reader that died: it is cleared here, under that lock, or a reader that takes the slot just now
  // would be unpinned with it.
  u64 oldest_pinned(bool check_dead) {
    // Readers of this process take and free slots under the same mutex; pinning never asks for it.
    std::unique_lock<std::mutex> guard(slots_mutex_, std::defer_lock);
    check_dead = check_dead && shared() && guard.try_lock();
    u64 oldest = UINT64_MAX;
    ArenaHeader& head = header();
    for (u32 slot = 0; slot < READER_SLOTS; ++slot) {
      const u64 epoch = head.slots[slot].epoch.load(std::memory_order_seq_cst);
      if (epoch == 0) continue;
      if (check_dead && !own_[slot] && lock(slot, F_WRLCK)) {
        head.slots[slot].epoch.store(0, std::memory_order_seq_cst);
        lock(slot, F_UNLCK);
        continue;
      }
      oldest = std::min(oldest, epoch);
    }
    return oldest;
  }

  // ---- readers ----------------------------------------------------------------------------------------------------

  u32 take_slot() {
    std::lock_guard<std::mutex> guard(slots_mutex_);
    ArenaHeader& head = header();
    for (u32 slot = 0; slot < READER_SLOTS; ++slot) {
      if (own_[slot]) continue;
      if (shared()) {
        if (!lock(slot, F_WRLCK)) continue;
      } else if (head.slots[slot].taken.exchange(1) != 0) {
        continue;
      }
      own_[slot] = true;
      head.slots[slot].epoch.store(0, std::memory_order_seq_cst);
      return slot;
    }
    throw ArenaRefused("all " + std::to_string(READER_SLOTS) + " reader slots of the arena are taken");
  }

  void free_slot(u32 slot) {
    std::lock_guard<std::mutex> guard(slots_mutex_);
    header().slots[slot].epoch.store(0, std::memory_order_seq_cst);
    own_[slot] = false;
    if (shared())
      lock(slot, F_UNLCK);
    else
      header().slots[slot].taken.store(0);
  }

  // Slots that a living reader holds.
  u32 slots_taken() {
    std::lock_guard<std::mutex> guard(slots_mutex_);
    u32 taken = 0;
    for (u32 slot = 0; slot < READER_SLOTS; ++slot)
      taken += own_[slot] || (shared() ? locked_elsewhere(slot) : header().slots[slot].taken.load() != 0);
    return taken;
  }

  // Reading the epoch again settles the race with a writer that looks at the slots in between: either it sees this
  // slot, or this reader sees the new epoch and with it all that was published before.
  NOWGRAPH_INLINE void pin(u32 slot) {
    ArenaHeader& head = header();
    u64 epoch = head.epoch.load(std::memory_order_seq_cst);
    for (;;) {
      head.slots[slot].epoch.store(epoch, std::memory_order_seq_cst);
      const u64 again = head.epoch.load(std::memory_order_seq_cst);
      if (again == epoch) return;
      epoch = again;
    }
  }
  NOWGRAPH_INLINE void unpin(u32 slot) { header().slots[slot].epoch.store(0, std::memory_order_release); }

 private:
  Arena() = default;

  NOWGRAPH_INLINE u64 offset_of(const void* at) const { return static_cast<u64>(static_cast<const char*>(at) - base_); }

  void mark_writes() {
    marks_ = PageMarks(bytes_);
    if (!marks_.there()) throw ArenaFull("no memory for the marks of " + std::to_string(bytes_) + " bytes");
  }

  void hold(std::unique_ptr<ColumnFile> columns) {
    columns_ = std::move(columns);
    columns_base_ = columns_->base();
  }

  void stamp_columns() {
    ArenaHeader& head = header();
    head.columns_bytes = columns_ == nullptr ? 0 : columns_->bytes();
    head.columns_stamp = columns_ == nullptr ? 0 : columns_->stamp();
    if (columns_ == nullptr) {
      head.columns_used.store(0);
      return;
    }
    columns_->back(std::max(COLUMNS_START, head.columns_used.load()));
    columns_->write_header();
  }

  void name(std::string_view fingerprint) {
    char (&to)[64] = header().fingerprint;
    std::memset(to, 0, sizeof to);
    std::memcpy(to, fingerprint.data(), std::min(fingerprint.size(), sizeof to));
  }

  void map(u64 bytes, int fd, int flags) {
    if (bytes > ARENA_BYTES_MAX)
      throw ArenaRefused("an arena of " + std::to_string(bytes) + " bytes; at most " + std::to_string(ARENA_BYTES_MAX) +
                         " can be addressed");
    bytes_ = bytes;
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (memory == MAP_FAILED) throw ArenaFull("cannot map " + std::to_string(bytes) + " bytes");
    base_ = static_cast<char*>(memory);
    ::madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: where it is not granted, only speed suffers
  }

  void verify() const {
    const ArenaHeader& head = header();
    if (std::memcmp(head.magic, ARENA_MAGIC, sizeof ARENA_MAGIC) != 0) throw ArenaRefused("not an arena: " + path_);
    if (head.layout_version != LAYOUT_VERSION)
      throw ArenaRefused("arena " + path_ + " has layout " + std::to_string(head.layout_version) + ", expected " +
                         std::to_string(LAYOUT_VERSION));
  }

  void back(u64 until) {
    if (shared()) backed_ = back_file(fd_, path_, backed_, until, bytes_);
  }

  // Open file description locks: they die with the process, whatever killed it.
  bool lock(u32 slot, short type) const {
    struct flock range {};
    range.l_type = type;
    range.l_whence = SEEK_SET;
    range.l_start = static_cast<off_t>(bytes_ + slot);  // beyond the data: only the lock table knows these bytes
    range.l_len = 1;
    return ::fcntl(fd_, F_OFD_SETLK, &range) == 0;
  }
  bool locked_elsewhere(u32 slot) const {
    struct flock range {};
    range.l_type = F_WRLCK;
    range.l_whence = SEEK_SET;
    range.l_start = static_cast<off_t>(bytes_ + slot);
    range.l_len = 1;
    return ::fcntl(fd_, F_OFD_GETLK, &range) == 0 && range.l_type != F_UNLCK;
  }

  std::string path_;
  int fd_ = -1;
  char* base_ = nullptr;
  u64 bytes_ = 0;
  u64 backed_ = 0;
  PageMarks marks_;
  std::unique_ptr<ColumnFile> columns_;
  char* columns_base_ = nullptr;
  bool own_[READER_SLOTS] = {};
  std::mutex slots_mutex_;
};

}  // namespace nowgraph
