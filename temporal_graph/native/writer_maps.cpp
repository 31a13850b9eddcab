// The writer's part that keeps strings, their codes, and the maps from keys to rows.
#include <bit>

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
  arena_.written(to, bytes);
  return offset;
}

CodeEntry& Writer::code_entry(const Dictionary& dictionary, u32 code) const {
  return *reinterpret_cast<CodeEntry*>(dictionary.codes.item(arena_, code));
}

// The code of a string that one more cell holds from now on.
u32 Writer::code_of(ColumnHeader& column, std::string_view text, u64& account) {
  auto& dictionary = *arena_.at<Dictionary>(column.dictionary);
  const u32 found = reader_.find_code(dictionary, text);
  if (found != NONE) {
    CodeEntry& entry = code_entry(dictionary, found);
    ++entry.uses;
    arena_.written(&entry, sizeof entry);
    return found;
  }
  const u32 code = dictionary.size.load(std::memory_order_relaxed);
  if (code >= 0x7FFFFFFFu) throw ArenaFull("the dictionary of " + std::string(column.name) + " is full");
  while ((code >> dictionary.codes.log2_items) >= dictionary.codes.chunk_count) grow_chunks(dictionary.codes);
  CodeEntry& entry = code_entry(dictionary, code);
  entry = {keep_string(text, account), 1};
  arena_.written(&entry, sizeof entry);
  dictionary.size.store(code + 1, std::memory_order_release);
  arena_.written(&dictionary, sizeof dictionary);
  map_insert(dictionary.map, hash_bytes(text.data(), text.size()), code, account);
  return code;
}

// ---- integer keys --------------------------------------------------------------------------------------------------

// Where the key's row is to be written, with its page made if that is allowed; nullptr: into the map.
std::atomic<u32>* Writer::dense_slot_for(u32 table_index, TableHeader& table, i64 key) {
  std::atomic<u32>* slot = reader_.dense_slot(table, key);
  if (__builtin_expect(slot != nullptr, 1)) return slot;
  if (key < 0 || key > DENSE_KEY_MAX || !add_dense_page(table_index, table, static_cast<u64>(key) >> DENSE_PAGE_LOG2))
    return nullptr;
  return reader_.dense_slot(table, key);
}

bool Writer::add_dense_page(u32 table_index, TableHeader& table, u64 page) {
  constexpr u64 PAGE_BYTES = u64{DENSE_PAGE_KEYS} * sizeof(u32);
  TableState& state = states_[table_index];
  const u64 start = arena_.bytes() / DENSE_ARENA_SHARE;
  const u64 allowed = start + DENSE_BYTES_PER_ROW * u64{table.row_count.load(std::memory_order_relaxed)};
  if (state.dense_bytes + PAGE_BYTES > allowed) return false;
  u64 offset = table.dense.load(std::memory_order_relaxed);
  const u64 count = offset == 0 ? 0 : arena_.at<DenseKeys>(offset)->page_count;
  if (page >= count) {
    const u64 grown = std::max<u64>({64, 2 * count, std::bit_ceil(page + 1)});
    const u64 bytes = sizeof(DenseKeys) + grown * sizeof(u64);
    if (bytes > start) return false;
    const u64 copy = arena_.allocate(bytes);
    auto* directory = arena_.at<DenseKeys>(copy);
    directory->page_count = grown;
    for (u64 i = 0; i < count; ++i)
      directory->pages[i].store(arena_.at<DenseKeys>(offset)->pages[i].load(std::memory_order_relaxed),
                                std::memory_order_relaxed);
    arena_.written(directory, sizeof(DenseKeys) + count * sizeof(u64));
    table.dense.store(copy, std::memory_order_release);
    offset = copy;
  }
  const u64 slots = arena_.allocate(PAGE_BYTES);
  arena_.at<DenseKeys>(offset)->pages[page].store(slots, std::memory_order_release);
  arena_.written(&arena_.at<DenseKeys>(offset)->pages[page]);
  state.dense_bytes += PAGE_BYTES;
  return true;
}

// Makes a key that the table does not have find its row.
void Writer::enter_key(u32 table_index, TableHeader& table, i64 key, u32 row) {
  if (std::atomic<u32>* slot = dense_slot_for(table_index, table, key); slot != nullptr) {
    fill_slot(*slot, row + 1);
    return;
  }
  table.mapped.store(1, std::memory_order_release);
  map_insert(table.map, hash_integer(key), row, states_[table_index].key_map_bytes);
}

void Writer::forget_key(TableHeader& table, u32 row) {
  const char* key = reader_.key(table, row);
  if (table.key_kind == KeyKind::bytes) {
    const std::string_view bytes = reader_.string_at(load<u64>(key));
    map_erase(table.map, hash_bytes(bytes.data(), bytes.size()), row);
  } else if (std::atomic<u32>* slot = reader_.dense_slot(table, load<i64>(key));
             slot != nullptr && slot->load(std::memory_order_relaxed) == row + 1) {
    fill_slot(*slot, 0);
  } else {
    map_erase(table.map, hash_integer(load<i64>(key)), row);
  }
}

// ---- maps ----------------------------------------------------------------------------------------------------------

void Writer::map_insert(u64 map_offset, u64 hash, u32 value, u64& account) {
  MapShard& shard = shard_of(*arena_.at<Map>(map_offset), hash);
  MapSlots slots = slots_of(arena_, shard);
  if (slots.base == nullptr || u64{shard.used} * 2 >= slots.mask + 1) slots = grow(shard, slots, account);
  arena_.written(put_slot(slots, (hash >> 32) << 32 | (value + 1), std::memory_order_release));
  ++shard.used;
  arena_.written(&shard, sizeof shard);
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
  arena_.written(grown.base, u64{8} << log2);
  account += 8 * (grown.mask + 1 - capacity);
  const u64 before = (shard.word.load(std::memory_order_relaxed) >> 6) << 5;
  shard.word.store((offset >> 5) << 6 | log2, std::memory_order_release);
  if (capacity > 0) blocks_.retire(before, static_cast<u32>(capacity));
  return grown;
}

std::atomic<u64>* Writer::put_slot(const MapSlots& slots, u64 slot, std::memory_order order) {
  u64 at = (slot >> 32) & slots.mask;
  while (slots.base[at].load(std::memory_order_relaxed) != 0) at = (at + 1) & slots.mask;
  slots.base[at].store(slot, order);
  return slots.base + at;
}

void Writer::map_erase(u64 map_offset, u64 hash, u32 value) {
  const MapSlots slots = slots_of(arena_, shard_of(*arena_.at<Map>(map_offset), hash));
  if (slots.base == nullptr) return;
  for (u64 at = (hash >> 32) & slots.mask;; at = (at + 1) & slots.mask) {
    const u64 slot = slots.base[at].load(std::memory_order_relaxed);
    if (slot == 0) return;
    if (slot == ((hash >> 32) << 32 | (value + 1))) {
      slots.base[at].store(SLOT_ERASED, std::memory_order_release);  // nothing of the key's hash stays
      arena_.written(slots.base + at);
      return;
    }
  }
}

}  // namespace nowgraph
