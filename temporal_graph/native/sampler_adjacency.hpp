// Children lists alone, for benches only: how fast nodes of one kind are sampled over the arena's lists when no row is
// read. The store and the draws are those of the graph; rows, versions, clocks and cells are left out, and a tick is
// the whole time.
#pragma once

#include <vector>

#include "adjacency.hpp"
#include "blocks.hpp"
#include "reader.hpp"
#include "sampler_draw.hpp"
#include "sampler_sample.hpp"
#include "sampler_seen.hpp"

namespace nowgraph {

class AdjacencyBench {
 public:
  AdjacencyBench(u64 nodes, u64 arena_bytes)
      : arena_(arena_bytes), blocks_(prepared(arena_)), adjacency_(arena_, blocks_), zeros_(NODE_LIMIT_MAX + 1, 0) {
    words_ = arena_.at<std::atomic<u64>>(arena_.allocate(8 * nodes));
  }

  // Each event is two entries, one at each end; ticks ascending, or not: late ones are put in their place.
  void ingest(const u32* source, const u32* target, const u32* tick, std::size_t count) {
    constexpr std::size_t WORD_AHEAD = 24, TAIL_AHEAD = 12;
    const auto before = [](const Entry& a, const Entry& b) { return a.time < b.time; };
    for (std::size_t i = 0; i < count; ++i) {
      if (i + WORD_AHEAD < count) {
        prefetch_write(&words_[source[i + WORD_AHEAD]]);
        prefetch_write(&words_[target[i + WORD_AHEAD]]);
      }
      if (i + TAIL_AHEAD < count)
        for (const u32 node : {source[i + TAIL_AHEAD], target[i + TAIL_AHEAD]})
          prefetch_write(adjacency_.tail_address(words_[node].load(std::memory_order_relaxed)));
      adjacency_.insert(words_[source[i]], {target[i], tick[i] << 1}, before);
      adjacency_.insert(words_[target[i]], {source[i], tick[i] << 1}, before);
      if ((i & 8191) == 8191) blocks_.reclaim(false);
    }
  }

  // Breadth first, disjoint per seed, each node once; returns (nodes, edges) written over all seeds. `strategy` 0 takes
  // the newest, 1 draws uniformly.
  std::pair<u64, u64> sample(const u32* seeds, const u32* cutoffs, std::size_t count, const std::vector<u32>& fan_outs,
                             u32 strategy) {
    nodes_ = edges_ = 0;
    for (std::size_t i = 0; i < count; ++i) {
      if (i + 8 < count) prefetch(&words_[seeds[i + 8]]);
      if (i + 4 < count) prefetch_tail(words_[seeds[i + 4]].load(std::memory_order_acquire));
      if (i + 2 < count) prefetch_hub(words_[seeds[i + 2]].load(std::memory_order_acquire));
      random_.restart(1, i);
      walk(seeds[i], cutoffs[i], fan_outs, strategy);
    }
    return {nodes_, edges_};
  }

  u64 live_bytes() const { return adjacency_.bytes().live; }
  u64 entries() const { return adjacency_.bytes().entries; }

 private:
  struct Cursor {
    u32* node;
    u32 *source, *target, *tick;
    u32 nodes, edges;
  };
  struct Group {
    u32 node, first, count;
    List list;
  };

  static Arena& prepared(Arena& arena) {
    arena.format("bench", 1);
    return arena;
  }

  NOWGRAPH_INLINE void prefetch_tail(u64 word) const {
    const u32 count = list_count(word);
    if (count == 0) return;
    const auto* at = static_cast<const char*>(adjacency_.tail_address(word));
    prefetch(at);
    if (count <= HUB_ENTRIES && count > 8) prefetch(at - 64);
  }
  NOWGRAPH_INLINE void prefetch_hub(u64 word) const {
    const u32 count = list_count(word);
    if (count <= HUB_ENTRIES) return;
    const HubBlock& last = arena_.at<HubBlock>(list_offset(word))[(count - 1) / HUB_ENTRIES];
    const auto* at = reinterpret_cast<const char*>(arena_.at<Entry>(last.offset) + (count - 1) % HUB_ENTRIES);
    prefetch(at);
    prefetch(at - 64);
  }

  List list(u64 word) const {
    const u32 count = list_count(word);
    if (count <= HUB_ENTRIES) return {arena_.at<Entry>(list_offset(word)), nullptr, count};
    return {nullptr, arena_.at<HubBlock>(list_offset(word)), count};
  }
  NOWGRAPH_INLINE const Entry& at(const List& list, u32 i) const {
    if (list.block != nullptr) return list.block[i];
    return arena_.at<Entry>(list.hub[i / HUB_ENTRIES].offset)[i % HUB_ENTRIES];
  }
  static u32 prefix(const Entry* block, u32 count, u32 tick) {
    if (block[count - 1].tick() <= tick) return count;
    u32 low = 0, high = count - 1;
    for (u32 step = 1; low < high; step *= 2) {
      const u32 probe = high > step ? high - step : 0;
      if (block[probe].tick() <= tick) {
        low = probe + 1;
        break;
      }
      high = probe;
    }
    while (low < high) {
      const u32 middle = low + (high - low) / 2;
      if (block[middle].tick() <= tick) low = middle + 1; else high = middle;
    }
    return low;
  }
  u32 visible_prefix(const List& list, u32 tick) const {
    if (list.block != nullptr) return prefix(list.block, list.count, tick);
    const u32 blocks = (list.count + HUB_ENTRIES - 1) / HUB_ENTRIES;
    u32 low = 0, high = blocks;  // blocks that begin at or before the tick
    if (list.hub[blocks - 1].first_tick <= tick) low = blocks;
    while (low < high) {
      const u32 middle = (low + high) / 2;
      if (list.hub[middle].first_tick <= tick) low = middle + 1; else high = middle;
    }
    if (low == 0) return 0;
    const u32 start = (low - 1) * HUB_ENTRIES;
    return start + prefix(arena_.at<Entry>(list.hub[low - 1].offset), std::min(HUB_ENTRIES, list.count - start), tick);
  }

  NOWGRAPH_INLINE void edge(Cursor& out, const Entry& entry, u32 from, bool leaf) {
    const u32 node = seen_.find_or_add(0, entry.target, out.nodes, zeros_.data());
    if (node == out.nodes) {
      out.node[out.nodes++] = entry.target;
      if (!leaf) prefetch(&words_[entry.target]);
    }
    out.source[out.edges] = from;
    out.target[out.edges] = node;
    out.tick[out.edges] = entry.tick();
    ++out.edges;
  }

  void walk(u32 seed, u32 cutoff, const std::vector<u32>& fan_outs, u32 strategy) {
    constexpr u32 AHEAD_BLOCK = 10, AHEAD_HUB = 5;
    Cursor out{};
    room(out, 1);
    seen_.clear();
    seen_.find_or_add(0, seed, 0, zeros_.data());
    out.node[out.nodes++] = seed;
    u32 start = 0, end = 1;
    for (std::size_t hop = 0; hop < fan_outs.size() && start < end; ++hop) {
      const u32 number = fan_outs[hop];
      const bool leaf = hop + 1 == fan_outs.size();
      room(out, std::size_t{end - start} * number);
      groups_.clear();
      positions_.resize(0);
      for (u32 i = start; i < std::min(end, start + AHEAD_BLOCK); ++i) prefetch_tail(words_[out.node[i]].load());
      for (u32 i = start; i < end; ++i) {
        if (i + AHEAD_BLOCK < end) prefetch_tail(words_[out.node[i + AHEAD_BLOCK]].load(std::memory_order_acquire));
        if (i + AHEAD_HUB < end) prefetch_hub(words_[out.node[i + AHEAD_HUB]].load(std::memory_order_acquire));
        const u64 word = words_[out.node[i]].load(std::memory_order_acquire);
        if (list_count(word) == 0) continue;
        const List from = list(word);
        const u32 visible = visible_prefix(from, cutoff);
        const u32 count = std::min(number, visible);
        if (count < visible && strategy != 0) {
          groups_.push_back({i, static_cast<u32>(positions_.size()), count, from});
          u32* position = positions_.extend(count);
          draw_uniform(random_, tried_, visible, count, [&](u32 drawn) {
            *position++ = drawn;
            prefetch(&at(from, drawn));
          });
          continue;
        }
        Cursor local = out;
        for (u32 left = count, high = visible; left > 0;) {
          const u32 block = from.block != nullptr ? 0 : (high - 1) / HUB_ENTRIES;
          const Entry* entries = from.block != nullptr ? from.block : arena_.at<Entry>(from.hub[block].offset);
          const u32 top = high - block * HUB_ENTRIES, take = std::min(left, top);
          for (u32 j = 1; j <= take; ++j) edge(local, entries[top - j], i, leaf);
          left -= take;
          high -= take;
        }
        out = local;
      }
      Cursor local = out;
      for (const Group& group : groups_)
        for (u32 j = 0; j < group.count; ++j) edge(local, at(group.list, positions_[group.first + j]), group.node, leaf);
      out = local;
      start = end;
      end = out.nodes;
    }
    nodes_ += out.nodes;
    edges_ += out.edges;
  }

  void room(Cursor& out, std::size_t more) {
    node_.reserve(nodes_ + out.nodes + more);
    source_.reserve(edges_ + out.edges + more);
    target_.reserve(edges_ + out.edges + more);
    tick_.reserve(edges_ + out.edges + more);
    out.node = node_.data() + nodes_;
    out.source = source_.data() + edges_;
    out.target = target_.data() + edges_;
    out.tick = tick_.data() + edges_;
    seen_.reserve(static_cast<u32>(more), zeros_.data());
  }

  Arena arena_;
  Blocks blocks_;
  Adjacency adjacency_;
  std::vector<u8> zeros_;
  std::atomic<u64>* words_;
  u64 nodes_ = 0, edges_ = 0;
  SeenRows seen_;
  Random random_;
  NumberSet tried_;
  std::vector<Group> groups_;
  Column<u32> positions_, node_, source_, target_, tick_;
};

}  // namespace nowgraph
