// Which pages of a memory were written since an image took them: a byte a page. One writer marks them, one thread takes them.
#pragma once

#include <atomic>
#include <cstdlib>
#include <memory>

#include "types.hpp"

namespace nowgraph {

// Small, as lists grow all over the arena: with 16 times the size a busy second changes nearly all of them.
inline constexpr u32 IMAGE_PAGE_LOG2 = 12;
inline constexpr u64 IMAGE_PAGE_BYTES = u64{1} << IMAGE_PAGE_LOG2;

inline u64 pages_of(u64 bytes) { return (bytes + IMAGE_PAGE_BYTES - 1) / IMAGE_PAGE_BYTES; }

class PageMarks {
 public:
  PageMarks() = default;  // of a memory that is only read
  explicit PageMarks(u64 bytes) : marks_(static_cast<u8*>(std::calloc(pages_of(bytes) / 8 + 1, 8))) {}
  bool there() const { return marks_ != nullptr; }

  // Written first and then marked, taken first and then read: a page that was not read whole is marked.
  NOWGRAPH_INLINE void mark(u64 offset, u64 bytes) const {
    const u64 last = (offset + bytes - 1) >> IMAGE_PAGE_LOG2;
    for (u64 page = offset >> IMAGE_PAGE_LOG2; page <= last; ++page) at(page).store(1, std::memory_order_release);
  }
  // As `mark`, of a word, which lies in one page.
  NOWGRAPH_INLINE void mark_word(u64 offset) const { at(offset >> IMAGE_PAGE_LOG2).store(1, std::memory_order_release); }
  bool take(u64 page) const {
    return at(page).load(std::memory_order_relaxed) != 0 && at(page).exchange(0, std::memory_order_acq_rel) != 0;
  }

  // Of addresses in a memory that is mapped, and so begins where a page does.
  NOWGRAPH_INLINE static bool same_page(const void* a, const void* b) {
    return (reinterpret_cast<std::uintptr_t>(a) ^ reinterpret_cast<std::uintptr_t>(b)) < IMAGE_PAGE_BYTES;
  }

  // The first marked page from `page` on, `end` where there is none before it.
  u64 next(u64 page, u64 end) const {
    while (page < end) {
      if (page % 8 == 0 && end - page >= 8 && eight(page).load(std::memory_order_relaxed) == 0)
        page += 8;
      else if (at(page).load(std::memory_order_relaxed) != 0)
        return page;
      else
        ++page;
    }
    return end;
  }
  u64 count(u64 end) const {
    u64 marked = 0;
    for (u64 page = next(0, end); page < end; page = next(page + 1, end)) ++marked;
    return marked;
  }

 private:
  struct Free {
    void operator()(u8* memory) const { std::free(memory); }
  };
  NOWGRAPH_INLINE std::atomic_ref<u8> at(u64 page) const { return std::atomic_ref<u8>(marks_.get()[page]); }
  std::atomic_ref<u64> eight(u64 page) const { return std::atomic_ref<u64>(*reinterpret_cast<u64*>(marks_.get() + page)); }

  std::unique_ptr<u8[], Free> marks_;
};

}  // namespace nowgraph
