// The writer's part that keeps strings, their codes, and the maps from keys to rows.
#include "writer.hpp"

namespace nowgraph {

u64 Writer::keep_string(std::string_view text, u64& account) {
  const u64 bytes = (4 + text.size() + 3) / 4 * 4;
  u64 offset;
  if (bytes > (u64{1} << 16)) {
    offset = arena_.allocate(bytes);
  } else {
    if (string_next_ + bytes > string_end_) {
      string_next_ = arena_.allocate(u64{1} << 18);
      string_end_ = string_next_ + (u64{1} << 18);
    }
    offset = string_next_;
    string_next_ += bytes;
  }
  account += bytes;
  char* to = arena_.at<char>(offset);
  store<u32>(to, static_cast<u32>(text.size()));
  std::memcpy(to + 4, text.data(), text.size());
  return offset;
}

u32 Writer::code_of(ColumnHeader& column, std::string_view text, u64& account) {
  auto& dictionary = *arena_.at<Dictionary>(column.dictionary);
  const u32 found = reader_.find_code(dictionary, text);
  if (found != NONE) return found;
  const u32 code = dictionary.size.load(std::memory_order_relaxed);
  if (code >= 0x7FFFFFFFu) throw ArenaFull("the dictionary of " + std::string(column.name) + " is full");
  while ((code >> dictionary.codes.log2_items) >= dictionary.codes.chunk_count) grow_chunks(dictionary.codes);
  store<u64>(dictionary.codes.item(arena_, code), keep_string(text, account));
  dictionary.size.store(code + 1, std::memory_order_release);
  map_insert(dictionary.map, hash_bytes(text.data(), text.size()), code, account);
  return code;
}

void Writer::map_insert(u64 map_offset, u64 hash, u32 value, u64& account) {
  MapShard& shard = arena_.at<Map>(map_offset)->shards[hash & (MAP_SHARDS - 1)];
  u64 word = shard.word.load(std::memory_order_relaxed);
  const u64 capacity = word == 0 ? 0 : u64{1} << (word & 63);
  if (u64{shard.used} * 2 >= capacity) {
    const u32 log2 = word == 0 ? 2 : static_cast<u32>(word & 63) + 1;
    const u64 offset = blocks_.take(1u << log2);
    std::memset(arena_.at<char>(offset), 0, u64{8} << log2);
    auto* grown = arena_.at<std::atomic<u64>>(offset);
    const u64 mask = (u64{1} << log2) - 1;
    const u64 old = (word >> 6) << 5;
    const auto* slots = arena_.at<std::atomic<u64>>(old);
    shard.used = 0;
    for (u64 i = 0; i < capacity; ++i) {
      const u64 slot = slots[i].load(std::memory_order_relaxed);
      if (slot == 0 || static_cast<u32>(slot) == SLOT_ERASED) continue;
      u64 at = (slot >> 32) & mask;
      while (grown[at].load(std::memory_order_relaxed) != 0) at = (at + 1) & mask;
      grown[at].store(slot, std::memory_order_relaxed);
      ++shard.used;
    }
    account += 8 * ((u64{1} << log2) - capacity);
    word = (offset >> 5) << 6 | log2;
    shard.word.store(word, std::memory_order_release);
    if (capacity > 0) blocks_.retire(old, static_cast<u32>(capacity));
  }
  auto* slots = arena_.at<std::atomic<u64>>((word >> 6) << 5);
  const u64 mask = (u64{1} << (word & 63)) - 1;
  u64 at = (hash >> 32) & mask;
  while (slots[at].load(std::memory_order_relaxed) != 0) at = (at + 1) & mask;
  slots[at].store((hash >> 32) << 32 | (value + 1), std::memory_order_release);
  ++shard.used;
}

void Writer::map_erase(u64 map_offset, u64 hash, u32 value) {
  MapShard& shard = arena_.at<Map>(map_offset)->shards[hash & (MAP_SHARDS - 1)];
  const u64 word = shard.word.load(std::memory_order_relaxed);
  if (word == 0) return;
  auto* slots = arena_.at<std::atomic<u64>>((word >> 6) << 5);
  const u64 mask = (u64{1} << (word & 63)) - 1;
  for (u64 at = (hash >> 32) & mask;; at = (at + 1) & mask) {
    const u64 slot = slots[at].load(std::memory_order_relaxed);
    if (slot == 0) return;
    if (slot == ((hash >> 32) << 32 | (value + 1))) {
      slots[at].store((slot >> 32) << 32 | SLOT_ERASED, std::memory_order_release);
      return;
    }
  }
}

}  // namespace nowgraph
