// Blocks of 8-byte words that are replaced while readers are in them: taken from the arena by size class, retired with
// the epoch, reused when every pinned epoch is later.
#pragma once

#include <algorithm>
#include <deque>
#include <vector>

#include "image.hpp"
#include "layout.hpp"

namespace nowgraph {

class Blocks {
 public:
  explicit Blocks(Arena& arena) : arena_(arena) {}

  // 4, 8, 12, 16, 24, 32, 48, ... words: whole 32-byte units.
  NOWGRAPH_INLINE static u32 capacity_for(u32 words) {
    const u32 low = 1u << (31 - __builtin_clz((words - 1) | 4));  // at least 4, so that no branch asks for small ones
    const u32 middle = low + (low >> 1 & ~3u);
    return words <= middle ? middle : low << 1;
  }

  // The offset of a block of this capacity (one that capacity_for gives). Its content is whatever it was.
  u64 take(u32 capacity) {
    std::vector<u64>& free = free_[class_of(capacity)];
    if (free.empty()) return carve(u64{capacity} * 8);
    const u64 offset = free.back();
    free.pop_back();
    idle_bytes_ -= u64{capacity} * 8;
    return offset;
  }

  void retire(u64 offset, u32 capacity) {
    idle_bytes_ += u64{capacity} * 8;
    limbo_.push_back({offset, arena_.header().epoch.load(std::memory_order_relaxed), capacity});
  }

  // Starts a new epoch and takes back what no reader can reach any more: what is older than the epoch that it returns.
  u64 reclaim(bool check_dead) {
    const u64 epoch = arena_.header().epoch.fetch_add(1, std::memory_order_seq_cst) + 1;
    const u64 oldest = std::min(arena_.oldest_pinned(check_dead), epoch);
    for (; !limbo_.empty() && limbo_.front().epoch < oldest; limbo_.pop_front())
      free_[class_of(limbo_.front().capacity)].push_back(limbo_.front().offset);
    return oldest;
  }
  bool waiting() const { return !limbo_.empty(); }

  // What of this lies outside the arena. Without readers what is retired is free.
  void save(StateOut& out) const {
    out.put(slab_next_);
    out.put(slab_end_);
    out.put(idle_bytes_);
    for (const std::vector<u64>& free : free_) out.put_all(free);
    std::vector<u64> retired;
    for (const Retired& one : limbo_) retired.insert(retired.end(), {one.offset, class_of(one.capacity)});
    out.put_all(retired);
  }
  void resume(StateIn& in) {
    slab_next_ = in.take<u64>();
    slab_end_ = in.take<u64>();
    idle_bytes_ = in.take<u64>();
    for (std::vector<u64>& free : free_) free = in.take_all<u64>();
    const std::vector<u64> retired = in.take_all<u64>();
    for (u64 i = 0; i + 1 < retired.size(); i += 2) free_[retired[i + 1] & 63].push_back(retired[i]);
  }

  // Bytes that are retired or free to be used again.
  u64 idle_bytes() const { return idle_bytes_; }

 private:
  struct Retired {
    u64 offset;
    u64 epoch;
    u32 capacity;
  };
  static constexpr u64 SLAB_BYTES = u64{1} << 20;

  static u32 class_of(u32 capacity) {
    const u32 power = 31 - static_cast<u32>(__builtin_clz(capacity));
    return 2 * power + (capacity != (1u << power));
  }

  u64 carve(u64 bytes) {
    if (bytes > SLAB_BYTES / 4) return arena_.allocate(bytes);
    if (slab_next_ + bytes > slab_end_) open_slab(bytes);
    const u64 offset = slab_next_;
    slab_next_ += bytes;
    return offset;
  }

  // A large block that nobody needs in its own size any more is cut up before the arena is asked for more.
  void open_slab(u64 bytes) {
    for (u32 size_class = 63; size_class >= CUT_CLASS; --size_class) {
      const u64 words = (u64{1} << (size_class / 2)) * (size_class % 2 == 0 ? 2 : 3) / 2;
      if (free_[size_class].empty() || words * 8 < bytes) continue;
      slab_next_ = free_[size_class].back();
      slab_end_ = slab_next_ + words * 8;
      free_[size_class].pop_back();
      idle_bytes_ -= words * 8;
      return;
    }
    slab_next_ = arena_.allocate(SLAB_BYTES);
    slab_end_ = slab_next_ + SLAB_BYTES;
  }
  static constexpr u32 CUT_CLASS = 2 * 11;  // 2,048 words: two of the largest list blocks

  Arena& arena_;
  u64 slab_next_ = 0;
  u64 slab_end_ = 0;
  u64 idle_bytes_ = 0;
  std::vector<u64> free_[64];
  std::deque<Retired> limbo_;
};

}  // namespace nowgraph
