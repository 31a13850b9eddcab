// What was erased and stays so: of each erased key, until when, and whose row it was. The writer's own memory, saved with
// its state; readers need none of it, they no longer find the rows.
//
//   key -> mark (32 bits: is it worth a look?) -> digest (SHA-256 of table and key, half of it) -> ErasedKey
#pragma once

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "decode.hpp"
#include "image.hpp"
#include "sha256.hpp"

namespace nowgraph {

struct KeyDigest {
  u64 low, high;
  bool operator==(const KeyDigest&) const = default;
};

struct KeyDigestHash {
  std::size_t operator()(const KeyDigest& digest) const { return digest.low; }
};

inline constexpr i64 NOT_ERASED_US = INT64_MIN;

struct ErasedKey {
  i64 asked_us = NOT_ERASED_US;  // the latest time of the erasures of this very key
  i64 until_us = NOT_ERASED_US;  // changes that happened then or before are erased: its own time, or an owner's
  u32 table = NONE;
  u32 row = NONE;  // that has the key now; NONE: no row does, or it was dropped
  u32 mark = 0;
  std::vector<KeyDigest> owners;  // the rows whose own it was, as changes said that are gone now
};

class Erasures {
 public:
  bool empty() const { return keys_.empty(); }

  static u32 mark_of(const KeyValue& key) {
    return static_cast<u32>(key.integer ? hash_integer(key.number) : hash_bytes(key.bytes.data(), key.bytes.size()));
  }
  static KeyDigest digest_of(std::string_view table, const KeyValue& key) {
    std::string text(table);
    text.push_back('\0');
    if (key.integer)
      text.append(reinterpret_cast<const char*>(&key.number), sizeof key.number);
    else
      text.append(key.bytes);
    const auto digest = sha256(text);
    return {load<u64>(digest.data()), load<u64>(digest.data() + 8)};
  }

  // What is known of a key; nullptr: it was never erased.
  ErasedKey* find(std::string_view table, const KeyValue& key) {
    const u32 mark = mark_of(key);
    if (marks_.empty() || (marks_[mark % MARKS / 64] >> (mark % 64) & 1) == 0) return nullptr;
    return find(digest_of(table, key));
  }
  ErasedKey* find(const KeyDigest& digest) {
    const auto found = keys_.find(digest);
    return found == keys_.end() ? nullptr : &found->second;
  }

  ErasedKey& enter(const KeyDigest& digest, u32 mark) {
    ErasedKey& key = keys_[digest];
    key.mark = mark;
    put_mark(mark);
    return key;
  }
  void own(const KeyDigest& digest, const KeyDigest& owner) {
    std::vector<KeyDigest>& owners = keys_[digest].owners;
    if (std::find(owners.begin(), owners.end(), owner) != owners.end()) return;
    owners.push_back(owner);
    owned_[owner].push_back(digest);
  }
  std::vector<KeyDigest> owned_by(const KeyDigest& owner) const {
    const auto found = owned_.find(owner);
    return found == owned_.end() ? std::vector<KeyDigest>{} : found->second;
  }
  template <class Visit>
  void each(Visit visit) {
    for (auto& [digest, key] : keys_) visit(digest, key);
  }
  template <class Visit>
  void each(Visit visit) const {
    for (const auto& [digest, key] : keys_) visit(digest, key);
  }

  void save(StateOut& out) const {
    out.put<u64>(keys_.size());
    for (const auto& [digest, key] : keys_) {
      out.put(digest);
      out.put(key.asked_us);
      out.put(key.until_us);
      out.put(key.table);
      out.put(key.row);
      out.put(key.mark);
      out.put_all(key.owners);
    }
  }
  void resume(StateIn& in) {
    for (u64 left = in.take<u64>(); left > 0; --left) {
      const auto digest = in.take<KeyDigest>();
      ErasedKey& key = keys_[digest];
      key.asked_us = in.take<i64>();
      key.until_us = in.take<i64>();
      key.table = in.take<u32>();
      key.row = in.take<u32>();
      key.mark = in.take<u32>();
      key.owners = in.take_all<KeyDigest>();
      put_mark(key.mark);
      for (const KeyDigest& owner : key.owners) owned_[owner].push_back(digest);
    }
  }

 private:
  static constexpr u32 MARKS = 1u << 20;

  void put_mark(u32 mark) {
    if (marks_.empty()) marks_.resize(MARKS / 64);
    marks_[mark % MARKS / 64] |= u64{1} << (mark % 64);
  }

  std::unordered_map<KeyDigest, ErasedKey, KeyDigestHash> keys_;
  std::unordered_map<KeyDigest, std::vector<KeyDigest>, KeyDigestHash> owned_;
  std::vector<u64> marks_;  // a bit for every mark's low end: most keys are told apart by it
};

}  // namespace nowgraph
