// The cells of tables whose columns lie on disk: a sparse file that the writer and its readers map. The page cache holds
// of it what is asked for often, as far as there is room.
//
//   writer: Arena::allocate_columns ─► fill ─► written          readers: ask, for all rows of a batch ─► at
//
// Cells never change after their row is published. The file belongs to one arena: both hold the same stamp.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>

#include "marks.hpp"

namespace nowgraph {

inline constexpr char COLUMNS_MAGIC[8] = {'N', 'O', 'W', 'C', 'E', 'L', 'L', 'S'};
inline constexpr u64 COLUMNS_START = 4096;  // the header's page, then cells

struct ColumnFileHeader {
  char magic[8];
  u64 bytes;
  u64 stamp;
};

// A sparse file that outgrows its file system kills the process on touch; asking for the blocks ahead of use turns that
// into an error that names itself. Returns up to where there are blocks.
inline u64 back_file(int fd, const std::string& path, u64 backed, u64 until, u64 bytes) {
  if (until <= backed) return backed;
  const u64 step = u64{8} << 20;
  const u64 target = std::min(bytes, (until + step - 1) / step * step);
  for (;;) {
    const int error = ::posix_fallocate(fd, static_cast<off_t>(backed), static_cast<off_t>(target - backed));
    if (error == 0) return target;
    if (error == EINTR) continue;  // tmpfs gives up on any signal
    throw ArenaFull("the file system of " + path + (error == ENOSPC ? " is full" : std::string(" gives no blocks: ") + std::strerror(error)));
  }
}

// ArenaFull where the file system has no room.
inline void write_file(int fd, const std::string& path, const char* from, u64 bytes, u64 offset) {
  while (bytes > 0) {
    const ssize_t written = ::pwrite(fd, from, bytes, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw ArenaFull("cannot write " + path + ": " + std::strerror(errno));
    from += written;
    offset += static_cast<u64>(written);
    bytes -= static_cast<u64>(written);
  }
}

// Where the columns of an image lie.
inline std::string columns_of_image(const std::string& image) { return image + ".columns"; }

class ColumnFile {
 public:
  // A new one, of the arena that takes its stamp.
  ColumnFile(const std::string& path, u64 bytes) : ColumnFile(path, O_RDWR | O_CREAT | O_EXCL) {
    if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0) refuse("cannot be sized");
    map(bytes, PROT_READ | PROT_WRITE, MAP_SHARED);
    std::random_device random;
    stamp_ = u64{random()} << 32 | random();
    marks_ = PageMarks(bytes);
    if (!marks_.there()) refuse("is too large to be written");
  }

  // The one that an arena with this stamp was made with.
  ColumnFile(const std::string& path, u64 bytes, u64 stamp) : ColumnFile(path, O_RDONLY) {
    if (file_bytes() < bytes) refuse("is cut off");
    map(bytes, PROT_READ, MAP_SHARED);
    const auto& head = *reinterpret_cast<const ColumnFileHeader*>(base_);
    if (std::memcmp(head.magic, COLUMNS_MAGIC, sizeof COLUMNS_MAGIC) != 0 || head.stamp != stamp)
      refuse("is of another arena");
  }

  // That of an image, to be read.
  explicit ColumnFile(const std::string& path) : ColumnFile(path, O_RDONLY) { map(file_bytes(), PROT_READ, MAP_PRIVATE); }

  ~ColumnFile() {
    if (base_ != nullptr) ::munmap(base_, bytes_);
    ::close(fd_);
  }
  ColumnFile(const ColumnFile&) = delete;
  ColumnFile& operator=(const ColumnFile&) = delete;

  char* base() const { return base_; }
  u64 bytes() const { return bytes_; }
  u64 stamp() const { return stamp_; }
  const std::string& path() const { return path_; }

  // Starts to read what lies there from disk, without waiting for it.
  void ask(u64 offset, u64 bytes) const {
    const u64 start = offset & ~u64{4095};
    ::madvise(base_ + start, offset + bytes - start, MADV_WILLNEED);
  }

  // ---- writer -----------------------------------------------------------------------------------------------------

  void write_header() {
    auto& head = *reinterpret_cast<ColumnFileHeader*>(base_);
    std::memcpy(head.magic, COLUMNS_MAGIC, sizeof COLUMNS_MAGIC);
    head.bytes = bytes_;
    head.stamp = stamp_;
  }

  void back(u64 until) { backed_ = back_file(fd_, path_, backed_, until, bytes_); }

  // As it was when it was made.
  void clear() {
    if (::ftruncate(fd_, 0) != 0 || ::ftruncate(fd_, static_cast<off_t>(bytes_)) != 0) refuse("cannot be cleared");
    backed_ = 0;
  }

  void written(u64 offset, u64 bytes) { marks_.mark(offset, bytes); }
  const PageMarks& marks() const { return marks_; }

  // Bytes for an image: past the mapping, which would read them in small pieces and keep them in place of what readers ask.
  void read(u64 offset, u64 count, char* to) const {
    for (u64 done = 0; done < count;) {
      const ssize_t got = ::pread(fd_, to + done, count - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) refuse("cannot be read");
      done += static_cast<u64>(got);
    }
    ::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(count), POSIX_FADV_DONTNEED);  // mapped pages stay
  }

 private:
  ColumnFile(const std::string& path, int flags) : path_(path), fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {
    if (fd_ < 0) throw ArenaRefused("cannot open the columns in " + path_ + ": " + std::strerror(errno));
  }

  [[noreturn]] void refuse(const char* why) const { throw ArenaRefused("the columns' file " + path_ + " " + why); }

  u64 file_bytes() const {
    struct stat info {};
    return ::fstat(fd_, &info) == 0 ? static_cast<u64>(info.st_size) : 0;
  }

  void map(u64 bytes, int protection, int flags) {
    void* memory = bytes < sizeof(ColumnFileHeader) ? MAP_FAILED : ::mmap(nullptr, bytes, protection, flags, fd_, 0);
    if (memory == MAP_FAILED) refuse("cannot be mapped");
    base_ = static_cast<char*>(memory);
    bytes_ = bytes;
    ::madvise(memory, bytes, MADV_RANDOM);  // rows are asked for one by one: what lies beside them would be read for nothing
  }

  std::string path_;
  int fd_;
  char* base_ = nullptr;
  u64 bytes_ = 0;
  u64 stamp_ = 0;
  u64 backed_ = 0;
  PageMarks marks_;
};

}  // namespace nowgraph
