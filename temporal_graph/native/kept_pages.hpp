// Pages that an image keeps in memory until it has time to write them: what changes faster than a disk takes it.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "marks.hpp"

namespace nowgraph {

struct FreeMemory {
  void operator()(char* memory) const { std::free(memory); }
};
using PageMemory = std::unique_ptr<char[], FreeMemory>;

// Room for so many pages, on a page's boundary; null where there is none.
inline PageMemory memory_for(u64 pages) {
  return PageMemory(static_cast<char*>(std::aligned_alloc(IMAGE_PAGE_BYTES, pages * IMAGE_PAGE_BYTES)));
}

class KeptPages {
  static constexpr u64 HUGE_PAGE_BYTES = u64{2} << 20;

 public:
  // Room for so many pages of a memory; touched here, so that nobody waits for it later. Without the memory there is none.
  void make_room(u64 pages) {
    const u64 bytes = (pages * IMAGE_PAGE_BYTES + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    memory_ = PageMemory(static_cast<char*>(std::aligned_alloc(HUGE_PAGE_BYTES, bytes)));
    room_ = memory_ == nullptr ? 0 : pages;
    if (room_ == 0) return;
    ::madvise(memory_.get(), bytes, MADV_HUGEPAGE);  // a wish: fewer faults, here and while the writer rests
    std::memset(memory_.get(), 0, room_ * IMAGE_PAGE_BYTES);
  }
  u64 free() const { return room_ - pages_.size(); }
  bool has(u64 page) const { return page < places_.size() && places_[page] != NONE; }
  const char* at(u64 page) const { return memory_.get() + u64{places_[page]} * IMAGE_PAGE_BYTES; }

  // Where the page is to be kept: its place, or the next; there must be one.
  char* place(u64 page) {
    if (page >= places_.size()) places_.resize(page + page / 16 + 1, NONE);
    if (places_[page] == NONE) {
      places_[page] = static_cast<u32>(pages_.size());
      pages_.push_back(page);
    }
    return memory_.get() + u64{places_[page]} * IMAGE_PAGE_BYTES;
  }

  // The pages in order.
  std::vector<u64> pages() const {
    std::vector<u64> sorted = pages_;
    std::sort(sorted.begin(), sorted.end());
    return sorted;
  }

 private:
  PageMemory memory_;
  u64 room_ = 0;
  std::vector<u64> pages_;
  std::vector<u32> places_;  // by page; NONE: not kept
};

}  // namespace nowgraph
