// The write side of children lists: append in place, copy on everything else, retire what was replaced.
//
// A list of up to HUB_ENTRIES entries is one block of a size class; a longer one is a directory of full blocks. Entries
// below a published count never change, so a reader's single acquire load of the word is a snapshot of the list.
#pragma once

#include <vector>

#include "blocks.hpp"
#include "layout.hpp"

namespace nowgraph {

struct AdjacencyBytes {
  u64 entries = 0;    // live entries
  u64 live = 0;       // bytes of blocks and directories in use
  u64 late = 0;       // entries that were not appended at the end
};

class Adjacency {
 public:
  Adjacency(Arena& arena, Blocks& blocks) : arena_(arena), blocks_(blocks) {}

  void save(StateOut& out) const { out.put(bytes_); }
  void resume(StateIn& in) { bytes_ = in.take<AdjacencyBytes>(); }

  // Puts the entry where `before` says. Times are never equal in all of (open time, key): `before` is a total order.
  template <class Before>
  NOWGRAPH_INLINE void insert(std::atomic<u64>& word, Entry entry, Before before) {
    const u64 old = word.load(std::memory_order_relaxed);
    const u32 count = list_count(old);
    // Most lists have room in their one block, and most entries are their last.
    if (__builtin_expect(count - 1 < HUB_ENTRIES - 1 && count != Blocks::capacity_for(count), 1)) {
      Entry* const end = entries(list_offset(old)) + count;
      if (__builtin_expect(!before(entry, end[-1]), 1)) {
        ++bytes_.entries;
        set(end, entry);
        turn(word, list_word(list_offset(old), count + 1));
        return;
      }
    }
    put(word, old, count, entry, before);
  }

  // Whether an entry equal to this one (same target, same time) is in the list.
  template <class Before>
  bool contains(u64 word, Entry entry, Before before) const {
    const u32 count = list_count(word);
    u32 low = 0, high = count;
    while (low < high) {
      const u32 middle = (low + high) / 2;
      if (before(at(word, count, middle), entry)) low = middle + 1; else high = middle;
    }
    return low < count && !before(entry, at(word, count, low));
  }

  // Drops the first entries.
  void trim(std::atomic<u64>& word, u32 drop) {
    if (drop == 0) return;
    bytes_.entries -= drop;
    const u32 count = list_count(word.load(std::memory_order_relaxed));
    rewrite(word, 0, std::min(drop, count), nullptr);
  }

  // Drops the entries that `drop` says, wherever they stand, and returns how many.
  template <class Drop>
  u32 remove(std::atomic<u64>& word, Drop drop) {
    const u64 old = word.load(std::memory_order_relaxed);
    const u32 count = list_count(old);
    scratch_.clear();
    for (u32 i = 0; i < count; ++i)
      if (const Entry& entry = at(old, count, i); !drop(entry)) scratch_.push_back(entry);
    const u32 kept = static_cast<u32>(scratch_.size());
    if (kept == count) return 0;
    bytes_.entries -= count - kept;
    turn(word, kept == 0 ? 0 : write(old, 0, kept));
    retire_list(old, count, 0);
    return count - kept;
  }

  const Entry& at(u64 word, u32 count, u32 i) const {
    if (count <= HUB_ENTRIES) return entries(list_offset(word))[i];
    return entries(arena_.at<HubBlock>(list_offset(word))[i / HUB_ENTRIES].offset)[i % HUB_ENTRIES];
  }

  const AdjacencyBytes& bytes() const { return bytes_; }

  // What an append to the list reads and writes first: the end of a block, all of it when it is full and so will be
  // copied, a hub's directory; and then the end of a hub's last block.
  NOWGRAPH_INLINE void prefetch_end(u64 word) const {
    const u32 count = list_count(word);
    const auto* tail = static_cast<const char*>(tail_address(word));
    prefetch_write(tail);
    if (count >= HUB_ENTRIES) return;
    prefetch_write(tail + sizeof(Entry));
    if (count < 8 || count != Blocks::capacity_for(count)) return;
    const u32 lines = std::min<u32>(count / 8, COPY_LINES_AHEAD);
    for (u32 line = 1; line <= lines; ++line) prefetch(tail - 64 * line);
  }
  NOWGRAPH_INLINE void prefetch_hub_end(u64 word) const {
    const u32 count = list_count(word);
    if (count <= HUB_ENTRIES) return;
    const HubBlock& last = arena_.at<HubBlock>(list_offset(word))[(count - 1) / HUB_ENTRIES];
    prefetch_write(entries(last.offset) + count % HUB_ENTRIES);
  }

  NOWGRAPH_INLINE const void* tail_address(u64 word) const {
    const u32 count = list_count(word);
    if (count == 0) return arena_.at<char>(0);
    if (count > HUB_ENTRIES) return arena_.at<HubBlock>(list_offset(word)) + (count - 1) / HUB_ENTRIES;
    return entries(list_offset(word)) + (count - 1);
  }

 private:
  static constexpr u32 COPY_LINES_AHEAD = 12;

  NOWGRAPH_INLINE void turn(std::atomic<u64>& word, u64 to) const {
    word.store(to, std::memory_order_release);
    arena_.written(&word);
  }
  NOWGRAPH_INLINE void set(Entry* at, Entry entry) const {
    *at = entry;
    arena_.written(at);
  }

  NOWGRAPH_INLINE Entry* entries(u64 offset) const { return arena_.at<Entry>(offset); }

  static u32 directory_capacity(u32 blocks) {
    u32 capacity = 4;
    while (capacity < blocks) capacity <<= 1;
    return capacity;
  }

  u64 take(u32 capacity) {
    bytes_.live += u64{capacity} * sizeof(Entry);
    return blocks_.take(capacity);
  }
  u64 take_directory(u32 capacity) { return take(2 * capacity); }  // a HubBlock is two words
  void retire(u64 offset, u32 capacity) {
    bytes_.live -= u64{capacity} * sizeof(Entry);
    blocks_.retire(offset, capacity);
  }
  void retire_directory(u64 offset, u32 capacity) { retire(offset, 2 * capacity); }

  const Entry& last(u64 word, u32 count) const { return at(word, count, count - 1); }

  template <class Before>
  void put(std::atomic<u64>& word, u64 old, u32 count, Entry entry, Before before) {
    if (count == LIST_MAX) throw ArenaFull("a list holds " + std::to_string(LIST_MAX) + " entries at most");
    ++bytes_.entries;
    if (count == 0) {
      const u64 block = take(Blocks::capacity_for(1));
      set(entries(block), entry);
      turn(word, list_word(block, 1));
    } else if (!before(entry, last(old, count))) {
      append(word, old, count, entry);
    } else {
      ++bytes_.late;
      u32 low = 0, high = count;  // [0, low) before or equal, [high, count) after
      while (low < high) {
        const u32 middle = (low + high) / 2;
        if (before(entry, at(old, count, middle))) high = middle; else low = middle + 1;
      }
      rewrite(word, low, 0, &entry);
    }
  }

  // To the end of a list without room in its one block, or of a hub.
  void append(std::atomic<u64>& word, u64 old, u32 count, Entry entry) {
    const u64 offset = list_offset(old);
    if (count < HUB_ENTRIES) {
      const u64 grown = take(Blocks::capacity_for(count + 1));
      std::memcpy(entries(grown), entries(offset), count * sizeof(Entry));
      entries(grown)[count] = entry;
      arena_.written(entries(grown), (count + 1) * sizeof(Entry));
      turn(word, list_word(grown, count + 1));
      retire(offset, count);
      return;
    }
    if (count == HUB_ENTRIES) {  // the full block becomes the first of a directory
      const u64 directory = take_directory(4);
      auto* const blocks = arena_.at<HubBlock>(directory);
      blocks[0] = {offset, entries(offset)[0].tick(), 0};
      blocks[1] = new_block(entry);
      arena_.written(blocks, 2 * sizeof(HubBlock));
      turn(word, list_word(directory, count + 1));
      return;
    }
    auto* const blocks = arena_.at<HubBlock>(offset);
    const u32 block_count = (count + HUB_ENTRIES - 1) / HUB_ENTRIES;
    if (count % HUB_ENTRIES != 0) {
      set(entries(blocks[block_count - 1].offset) + count % HUB_ENTRIES, entry);
      turn(word, list_word(offset, count + 1));
      return;
    }
    const u32 capacity = directory_capacity(block_count);
    if (block_count < capacity) {
      blocks[block_count] = new_block(entry);
      arena_.written(blocks + block_count, sizeof(HubBlock));
      turn(word, list_word(offset, count + 1));
      return;
    }
    const u64 grown = take_directory(2 * capacity);
    auto* copy = arena_.at<HubBlock>(grown);
    std::memcpy(copy, blocks, block_count * sizeof(HubBlock));
    copy[block_count] = new_block(entry);
    arena_.written(copy, (block_count + 1) * sizeof(HubBlock));
    turn(word, list_word(grown, count + 1));
    retire_directory(offset, capacity);
  }

  HubBlock new_block(Entry entry) {
    const u64 block = take(HUB_ENTRIES);
    set(entries(block), entry);
    return {block, entry.tick(), 0};
  }

  // Replaces [position, position + drop) by `add`, copying from the block of `position` on; earlier blocks are shared.
  void rewrite(std::atomic<u64>& word, u32 position, u32 drop, const Entry* add) {
    const u64 old = word.load(std::memory_order_relaxed);
    const u32 count = list_count(old);
    const u32 kept_blocks = count > HUB_ENTRIES ? position / HUB_ENTRIES : 0;
    const u32 start = kept_blocks * HUB_ENTRIES;
    scratch_.clear();
    for (u32 i = start; i < position; ++i) scratch_.push_back(at(old, count, i));
    if (add != nullptr) scratch_.push_back(*add);
    for (u32 i = position + drop; i < count; ++i) scratch_.push_back(at(old, count, i));
    const u32 total = start + static_cast<u32>(scratch_.size());
    turn(word, total == 0 ? 0 : write(old, kept_blocks, total));
    retire_list(old, count, total > HUB_ENTRIES ? kept_blocks : 0);
  }

  u64 write(u64 old, u32 kept_blocks, u32 total) {
    if (total <= HUB_ENTRIES) {
      const u64 block = take(Blocks::capacity_for(total));
      for (u32 i = 0; i < kept_blocks * HUB_ENTRIES; ++i) entries(block)[i] = at(old, list_count(old), i);
      std::memcpy(entries(block) + kept_blocks * HUB_ENTRIES, scratch_.data(), scratch_.size() * sizeof(Entry));
      arena_.written(entries(block), total * sizeof(Entry));
      return list_word(block, total);
    }
    const u32 block_count = (total + HUB_ENTRIES - 1) / HUB_ENTRIES;
    const u64 directory = take_directory(directory_capacity(block_count));
    auto* const blocks = arena_.at<HubBlock>(directory);
    if (kept_blocks > 0) std::memcpy(blocks, arena_.at<HubBlock>(list_offset(old)), kept_blocks * sizeof(HubBlock));
    for (u32 b = kept_blocks; b < block_count; ++b) {
      const u32 from = (b - kept_blocks) * HUB_ENTRIES;
      const u32 size = std::min<u32>(HUB_ENTRIES, static_cast<u32>(scratch_.size()) - from);
      const u64 block = take(HUB_ENTRIES);
      std::memcpy(entries(block), scratch_.data() + from, size * sizeof(Entry));
      arena_.written(entries(block), size * sizeof(Entry));
      blocks[b] = {block, scratch_[from].tick(), 0};
    }
    arena_.written(blocks, block_count * sizeof(HubBlock));
    return list_word(directory, total);
  }

  void retire_list(u64 old, u32 count, u32 shared_blocks) {
    if (count == 0) return;
    if (count <= HUB_ENTRIES) {
      retire(list_offset(old), Blocks::capacity_for(count));
      return;
    }
    const u32 block_count = (count + HUB_ENTRIES - 1) / HUB_ENTRIES;
    const auto* const blocks = arena_.at<HubBlock>(list_offset(old));
    for (u32 b = shared_blocks; b < block_count; ++b) retire(blocks[b].offset, HUB_ENTRIES);
    retire_directory(list_offset(old), directory_capacity(block_count));
  }

  Arena& arena_;
  Blocks& blocks_;
  std::vector<Entry> scratch_;
  AdjacencyBytes bytes_;
};

}  // namespace nowgraph
