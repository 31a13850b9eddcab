// The rows one neighborhood has already reached: 8 bytes a slot, emptied between seeds by a new tag.
#pragma once

#include <algorithm>
#include <bit>
#include <vector>

#include "types.hpp"

namespace nowgraph {

// A node's index within its neighborhood is packed into 20 bits beside a tag of 12.
inline constexpr u32 NODE_LIMIT_MAX = (1u << 20) - 1;

class SeenRows {
 public:
  SeenRows() { resize(1024); }

  void clear() {
    if (++tag_ == 1u << 12) {
      std::fill(slots_.begin(), slots_.end(), Slot{0, 0});
      tag_ = 1;
    }
    count_ = 0;
  }
  // The node of (table, row), or `next` after entering it as that node. Rows of different tables share the slots;
  // `tables` tells the table of a node.
  NOWGRAPH_INLINE u32 find_or_add(u32 table, u32 row, u32 next, const u8* tables) {
    for (u32 at = place(table, row);; at = (at + 1) & mask_) {
      Slot& slot = slots_[at];
      if ((slot.tagged >> 20) != tag_) {
        slot = {row, (tag_ << 20) | next};
        ++count_;
        return next;
      }
      const u32 node = slot.tagged & NODE_LIMIT_MAX;
      if (slot.row == row && tables[node] == table) return node;
    }
  }
  // The node of (table, row), or NONE.
  u32 find(u32 table, u32 row, const u8* tables) const {
    for (u32 at = place(table, row);; at = (at + 1) & mask_) {
      const Slot& slot = slots_[at];
      if ((slot.tagged >> 20) != tag_) return NONE;
      const u32 node = slot.tagged & NODE_LIMIT_MAX;
      if (slot.row == row && tables[node] == table) return node;
    }
  }
  // Makes room for `more` rows; at most half of the slots are ever taken.
  NOWGRAPH_INLINE void reserve(u32 more, const u8* tables) {
    if (__builtin_expect((count_ + more) * 2 > mask_ + 1, 0)) grow(more, tables);
  }

 private:
  struct Slot {
    u32 row;
    u32 tagged;  // tag:12 | node:20
  };
  NOWGRAPH_INLINE u32 place(u32 table, u32 row) const {
    const u32 hash = (row + table * 0x85EBCA6Bu) * 0x9E3779B1u;
    return (hash ^ (hash >> 15)) & mask_;
  }
  void resize(u32 slots) {
    slots_.assign(slots, Slot{0, 0});
    mask_ = slots - 1;
    tag_ = 1;
  }
  void grow(u32 more, const u8* tables) {
    std::vector<Slot> old;
    for (const Slot& slot : slots_)
      if ((slot.tagged >> 20) == tag_) old.push_back(slot);
    resize(std::bit_ceil((count_ + more) * 2));
    for (const Slot& slot : old) {
      const u32 node = slot.tagged & NODE_LIMIT_MAX;
      u32 at = place(tables[node], slot.row);
      while ((slots_[at].tagged >> 20) == tag_) at = (at + 1) & mask_;
      slots_[at] = {slot.row, (tag_ << 20) | node};
    }
  }
  std::vector<Slot> slots_;
  u32 mask_ = 0, tag_ = 1, count_ = 0;
};

}  // namespace nowgraph
