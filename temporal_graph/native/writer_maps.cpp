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
  MapShard& shard = shard_of(*arena_.at<Map>(map_offset), hash);
  MapSlots slots = slots_of(arena_, shard);
  if (slots.base == nullptr || u64{shard.used} * 2 >= slots.mask + 1) slots = grow(shard, slots, account);
  put_slot(slots, (hash >> 32) << 32 | (value + 1), std::memory_order_release);
  ++shard.used;
}

// Twice the slots, without those that were erased.
MapSlots Writer::grow(MapShard& shard, const MapSlots& old, u64& account) {
  const u64 capacity = old.base == nullptr ? 0 : old.mask + 1;
  const u32 log2 = old.base == nullptr ? 2 : static_cast<u32>(shard.word.load(std::memory_order_relaxed) & 63) + 1;
  const u64 offset = blocks_.take(1u << log2);
  std::memset(arena_.at<char>(offset), 0, u64{8} << log2);
  const MapSlots grown{arena_.at<std::atomic<u64>>(offset), (u64{1} << log2) - 1};
  shard.used = 0;
  for (u64 i = 0; i < capacity; ++i) {
    const u64 slot = old.base[i].load(std::memory_order_relaxed);
    if (slot == 0 || static_cast<u32>(slot) == SLOT_ERASED) continue;
    put_slot(grown, slot, std::memory_order_relaxed);
    ++shard.used;
  }
  account += 8 * (grown.mask + 1 - capacity);
  const u64 before = (shard.word.load(std::memory_order_relaxed) >> 6) << 5;
  shard.word.store((offset >> 5) << 6 | log2, std::memory_order_release);
  if (capacity > 0) blocks_.retire(before, static_cast<u32>(capacity));
  return grown;
}

void Writer::put_slot(const MapSlots& slots, u64 slot, std::memory_order order) {
  u64 at = (slot >> 32) & slots.mask;
  while (slots.base[at].load(std::memory_order_relaxed) != 0) at = (at + 1) & slots.mask;
  slots.base[at].store(slot, order);
}

void Writer::map_erase(u64 map_offset, u64 hash, u32 value) {
  const MapSlots slots = slots_of(arena_, shard_of(*arena_.at<Map>(map_offset), hash));
  if (slots.base == nullptr) return;
  for (u64 at = (hash >> 32) & slots.mask;; at = (at + 1) & slots.mask) {
    const u64 slot = slots.base[at].load(std::memory_order_relaxed);
    if (slot == 0) return;
    if (slot == ((hash >> 32) << 32 | (value + 1))) {
      slots.base[at].store((slot >> 32) << 32 | SLOT_ERASED, std::memory_order_release);
      return;
    }
  }
}

}  // namespace nowgraph
