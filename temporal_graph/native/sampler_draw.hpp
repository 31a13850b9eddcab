// Drawing positions of a list without replacement: a small generator, a set of numbers, and the two random strategies.
//
// Position 0 is the oldest entry; rank 0 is the newest. Both strategies are exact: uniform is Floyd's algorithm
// (Bentley and Floyd, 1987); recency_weighted is successive sampling with weight 2^(-rank / half_life), by rejection
// where that is cheap and otherwise as a race of exponential clocks (Efraimidis and Spirakis, 2006).
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>
#include <vector>

#include "types.hpp"

namespace nowgraph {

// xoroshiro128+ (Blackman and Vigna): two words of state, one stream per seed of a request.
class Random {
 public:
  void restart(u64 seed, u64 stream) {
    low_ = mix64(seed + 0x9E3779B97F4A7C15ull * (2 * stream + 1));
    high_ = mix64(low_ ^ (stream + 0xD1B54A32D192ED03ull)) | 1;
  }
  NOWGRAPH_INLINE u64 next() {
    const u64 a = low_;
    u64 b = high_;
    const u64 result = a + b;
    b ^= a;
    low_ = std::rotl(a, 24) ^ b ^ (b << 16);
    high_ = std::rotl(b, 37);
    return result;
  }
  // An integer in [0, bound): multiply and shift, with Lemire's rejection so that no value is favoured.
  NOWGRAPH_INLINE u32 below(u32 bound) {
    u64 product = (next() >> 32) * bound;
    if (__builtin_expect(static_cast<u32>(product) < bound, 0)) {
      const u32 threshold = (0u - bound) % bound;
      while (static_cast<u32>(product) < threshold) product = (next() >> 32) * bound;
    }
    return static_cast<u32>(product >> 32);
  }
  // In (0, 1): never 0, whose logarithm is none.
  NOWGRAPH_INLINE double unit() { return (static_cast<double>(next() >> 12) + 0.5) * 0x1.0p-52; }
  double exponential() { return -std::log(unit()); }

 private:
  u64 low_ = 1, high_ = 2;
};

// A set of u32 that is emptied in O(1): a slot counts only when it carries the current tag.
class NumberSet {
  struct Slot {
    u32 number, tag;
  };

 public:
  void clear(u32 expected) {
    const u32 wanted = std::bit_ceil(std::max<u32>(expected, 16) * 4);
    if (wanted > slots_.size()) {
      slots_.assign(wanted, Slot{0, 0});
      mask_ = wanted - 1;
      tag_ = 0;
    }
    if (++tag_ == 0) {
      std::fill(slots_.begin(), slots_.end(), Slot{0, 0});
      tag_ = 1;
    }
    count_ = 0;
  }
  // Inserts as many as `clear` was told to expect: what it reads for each lies in variables of its own, because a store to
  // a slot might, for all that the compiler knows, be one to any of it.
  class Filling {
   public:
    explicit Filling(NumberSet& set) : set_(set), slots_(set.slots_.data()), mask_(set.mask_), tag_(set.tag_) {}
    ~Filling() { set_.count_ += count_; }
    Filling(const Filling&) = delete;
    Filling& operator=(const Filling&) = delete;
    // Whether the number is new.
    NOWGRAPH_INLINE bool insert(u32 number) {
      for (u32 at = place(number, mask_);; at = (at + 1) & mask_) {
        if (slots_[at].tag != tag_) {
          slots_[at] = {number, tag_};
          ++count_;
          return true;
        }
        if (slots_[at].number == number) return false;
      }
    }

   private:
    NumberSet& set_;
    Slot* const slots_;
    const u32 mask_, tag_;
    u32 count_ = 0;
  };
  // Whether the number is new.
  NOWGRAPH_INLINE bool insert(u32 number) {
    if (__builtin_expect(count_ * 2 > mask_, 0)) grow();
    for (u32 at = place(number, mask_);; at = (at + 1) & mask_) {
      Slot& slot = slots_[at];
      if (slot.tag != tag_) {
        slot = {number, tag_};
        ++count_;
        return true;
      }
      if (slot.number == number) return false;
    }
  }
  bool contains(u32 number) const {
    for (u32 at = place(number, mask_);; at = (at + 1) & mask_) {
      if (slots_[at].tag != tag_) return false;
      if (slots_[at].number == number) return true;
    }
  }
  u32 size() const { return count_; }

 private:
  NOWGRAPH_INLINE static u32 place(u32 number, u32 mask) {
    const u32 hash = number * 0x9E3779B1u;
    return (hash ^ (hash >> 15)) & mask;
  }
  void grow() {
    std::vector<u32> numbers;
    for (const Slot& slot : slots_)
      if (slot.tag == tag_) numbers.push_back(slot.number);
    clear(static_cast<u32>(slots_.size() / 2));  // twice as many
    for (u32 number : numbers) insert(number);
  }
  std::vector<Slot> slots_;
  u32 mask_ = 0, tag_ = 0, count_ = 0;
};

// k distinct positions of [0, size), every subset equally likely; needs k < size. `tried` then holds them.
template <class Take>
NOWGRAPH_INLINE void draw_uniform(Random& random, NumberSet& tried, u32 size, u32 k, Take&& take) {
  tried.clear(k);
  NumberSet::Filling filling(tried);
  Random own = random;
  for (u32 last = size - k; last < size; ++last) {
    u32 position = own.below(last + 1);
    if (!filling.insert(position)) {
      position = last;
      filling.insert(last);
    }
    take(position);
  }
  random = own;
}

// How far a race must look: beyond this many half-lives after the last winner, all ranks together win with a
// probability under 2^-40.
inline constexpr double RACE_HALF_LIVES = 48.0;

// Up to k distinct positions among those that `admits` allows and `tried` does not hold, weighted by recency: every
// rank has an exponential clock of rate 2^(-rank / half_life), and the first k to ring are taken, in that order.
template <class Admits, class Take>
void race_recency(Random& random, NumberSet& tried, u32 size, u32 k, double half_life, Admits&& admits, Take&& take) {
  std::vector<std::pair<double, u32>> first;  // log2 of the ringing time, position; a heap with the latest on top
  for (u32 rank = 0; rank < size; ++rank) {
    if (first.size() == k && rank / half_life > first.front().first + std::log2(half_life + 1) + RACE_HALF_LIVES) break;
    const u32 position = size - 1 - rank;
    if (tried.contains(position) || !admits(position)) continue;
    const double rings = std::log2(random.exponential()) + rank / half_life;
    if (first.size() == k) {
      if (rings >= first.front().first) continue;
      std::pop_heap(first.begin(), first.end());
      first.pop_back();
    }
    first.emplace_back(rings, position);
    std::push_heap(first.begin(), first.end());
  }
  std::sort_heap(first.begin(), first.end());
  for (const auto& [rings, position] : first) {
    tried.insert(position);
    take(position);
  }
}

// k distinct positions of [0, size) by recency; needs k < size. `tried` then holds them.
template <class Take>
void draw_recency(Random& random, NumberSet& tried, u32 size, u32 k, double half_life, Take&& take) {
  tried.clear(k);
  if (k > half_life || k > size / 2) {
    race_recency(random, tried, size, k, half_life, [](u32) { return true; }, take);
    return;
  }
  // A rank from the truncated exponential, drawn again when it was drawn before: about one draw in two repeats at
  // worst, because k is at most one half-life and at most half of the list.
  const double rate = 0.6931471805599453 / half_life;
  const double whole = -std::expm1(-rate * size);
  while (tried.size() < k) {
    const double rank = std::floor(-std::log1p(-random.unit() * whole) / rate);
    if (rank >= size) continue;  // the last bit of rounding
    const u32 position = size - 1 - static_cast<u32>(rank);
    if (tried.insert(position)) take(position);
  }
}

}  // namespace nowgraph
