// An image's file in the making, and the hash of its pages.
#include <cerrno>

#include "image.hpp"

namespace nowgraph {

namespace {

NOWGRAPH_INLINE u64 fold(u64 a, u64 b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<u64>(product) ^ static_cast<u64>(product >> 64);
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
    if (written < 0 && errno == EINVAL && (::fcntl(fd_, F_GETFL) & O_DIRECT) != 0) {  // wants other sizes than whole pages
      write_past_cache(false);
      continue;
    }
    if (written <= 0) throw ArenaRefused("cannot write image " + path_ + ": " + std::strerror(errno));
    from += written;
    offset += static_cast<u64>(written);
    bytes -= static_cast<u64>(written);
  }
}

void ImageFile::write_past_cache(bool past) const {
  const int flags = ::fcntl(fd_, F_GETFL);
  static_cast<void>(::fcntl(fd_, F_SETFL, past ? flags | O_DIRECT : flags & ~O_DIRECT));  // refused: as before
}

void ImageFile::write_pages(u64 first, u64 count, const char* data) {
  if (hashes_.size() < first + count) hashes_.resize(first + count);
  for (u64 i = 0; i < count; ++i) hashes_[first + i] = hash_page(data + i * IMAGE_PAGE_BYTES, IMAGE_PAGE_BYTES);
  write_at(data, count * IMAGE_PAGE_BYTES, first * IMAGE_PAGE_BYTES);
}

void ImageFile::sync() const {
  if (::fsync(fd_) != 0) throw ArenaRefused("cannot write image " + path_ + ": " + std::strerror(errno));
}

}  // namespace nowgraph
