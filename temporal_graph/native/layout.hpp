// What lies in the arena. Everything is reached by offset from GraphHeader; nothing holds a pointer.
//
//   GraphHeader -> TableHeader -> row records (chunks)      one fixed-stride record a row
//                              -> keys (chunks)             8 bytes a row
//                              -> DenseKeys, Map            key -> row
//                              -> ColumnHeader -> Dictionary string -> code
//               -> VersionPool                              changes of rows, newest first
//               -> PublishedState x 2                       what readers may see, whole batches only
//
// A row record, packed to 4 bytes (8 when the table has children; up to 32 it is 32, so that it is one cache line's):
//   list words    u64 per link that points at this table   the row's children: [count:28 | offset in 32 B units:36]
//   event, known  i64 each; the row's insert, or ALWAYS_US / BARE_US for a row known only by a foreign key
//   version head  u32: unit of the newest VersionRecord, NO_VERSION without any
//   parents       u32 per link of this table; NONE for null
//   cells         f64 numericals, i64 timestamps, u32 codes, f32 embeddings, u8 booleans
//
// Of a table whose columns lie on disk, the record has the u32 number of a slot in place of the cells; the slots are in
// the columns' file, as chunks that the arena knows. Slot 0 holds nulls, for all rows that came without cells.
//
// The inline part never changes after the row is published; what changes later is a VersionRecord. Only list words and
// the version head are atomics. An erasure overwrites the inline part once no reader can reach it any more.
#pragma once

#include <atomic>

#include "arena.hpp"
#include "types.hpp"

namespace nowgraph {

inline constexpr u32 MAX_TABLES = 64;
inline constexpr u32 MAX_LINKS = 128;      // of the whole schema
inline constexpr u32 MAX_COLUMNS = 1024;   // of one table
inline constexpr u32 MAX_PARTITIONS = 4096;
inline constexpr u32 MAX_NAME_BYTES = 120;
inline constexpr u32 CHUNK_ROWS_LOG2 = 13;
inline constexpr u32 CHUNK_ROWS = 1u << CHUNK_ROWS_LOG2;

enum class Kind : u8 { numerical = 0, timestamp = 1, coded = 2, embedding = 3, boolean = 4 };
enum class KeyKind : u8 { integer = 0, bytes = 1 };
enum class Operation : u8 { insert = 1, upsert = 2, remove = 3, erase = 4 };
enum class KnownTimeKind : u8 { event_time = 0, broker = 1, column = 2 };

inline constexpr u8 BOOLEAN_NULL = 2;
inline constexpr u32 CODE_NULL = 0;

// ------------------------------------------------------------------------------------------------------------------
// Version head of a record.

inline constexpr u32 NO_VERSION = 0x7FFFFFFFu;
// Set when the versions can move or hide the row: a foreign key set by a version, a delete, or no inline insert.
inline constexpr u32 STRUCTURAL = 0x80000000u;
inline constexpr u32 EVICTED = 0xFFFFFFFEu;  // retention dropped the row
inline constexpr u32 ERASED = 0xFFFFFFFDu;   // an erasure did: its key is overwritten, or soon will be
NOWGRAPH_INLINE bool is_dropped(u32 head) { return head == EVICTED || head == ERASED; }
NOWGRAPH_INLINE u32 version_unit(u32 head) { return head & 0x7FFFFFFFu; }

inline constexpr u32 VERSION_UNIT_BYTES = 16;
inline constexpr u32 VERSION_CHUNK_LOG2 = 15;  // units in a chunk: 512 KiB

inline constexpr u64 VERSION_CELLS_SLAB_BYTES = u64{1} << 18;  // of the columns' file, taken at once

enum VersionFlag : u8 {
  SETS_LINKS = 1,       // a link is among the cells (an insert always)
  REPLACES_INLINE = 2,  // the inline insert again, known earlier: the inline one no longer counts
  SUPERSEDED = 4,       // the same change, known earlier, follows in the chain: who may see that one does not see this one
};

// A change of a row. Chained newest first by (event time, known time, operation, content); cells follow the record as
// { u16 index, u16 is null, payload of the column's width }, columns first, links after them (index C + link). Where the
// table's columns lie on disk, a DiskCells says where those of the columns are, and only those of links follow.
// One whose operation is `erase` has no cells and is no version: where it is in a chain, the inline insert is none either.
struct VersionRecord {
  std::atomic<u32> next;  // unit of the next older one, NO_VERSION at the end
  u8 operation;
  std::atomic<u8> flags;  // VersionFlag
  u16 cell_count;
  i64 event_time_us;
  i64 known_time_us;
  u64 sequence;  // of the event that brought it: readers ignore those beyond their snapshot
  u64 content;   // hash of the cells: tells a duplicate, and orders equal times
};

struct DiskCells {
  u64 offset;  // in the columns' file
  u32 count;
  u32 bytes;
};

// A link that a version opened: the row hangs in the list at the version's time instead of its own.
struct LinkOpen {
  u32 row;
  u32 reserved;
  i64 open_time_us;
};

// ------------------------------------------------------------------------------------------------------------------
// Children lists. Sorted by (open time, key); entries of equal tick are ordered by the exact time.

struct Entry {
  u32 target;  // row, or unit of a LinkOpen
  u32 time;    // tick << 1 | is_open
  NOWGRAPH_INLINE bool is_open() const { return time & 1u; }
  NOWGRAPH_INLINE u32 tick() const { return time >> 1; }
};
static_assert(sizeof(Entry) == 8);
// Made as one word: a core that reads as one what it has just stored in two halves waits until both are in its cache.
NOWGRAPH_INLINE Entry entry_of(u32 target, u32 time) {
  const u64 word = u64{time} << 32 | target;
  Entry entry;
  std::memcpy(&entry, &word, sizeof entry);
  return entry;
}

inline constexpr u32 HUB_ENTRIES = 1024;  // a list longer than this is a directory of full blocks of this size
inline constexpr u64 LIST_OFFSET_MASK = (u64{1} << 36) - 1;
inline constexpr u32 LIST_MAX = (1u << 28) - 1;

struct HubBlock {
  u64 offset;
  u32 first_tick;
  u32 reserved;
};

static_assert(ARENA_BYTES_MAX == (LIST_OFFSET_MASK + 1) << 5);

NOWGRAPH_INLINE u64 list_word(u64 offset, u32 count) { return (offset >> 5) | (u64{count} << 36); }
NOWGRAPH_INLINE u32 list_count(u64 word) { return static_cast<u32>(word >> 36); }
NOWGRAPH_INLINE u64 list_offset(u64 word) { return (word & LIST_OFFSET_MASK) << 5; }

// ------------------------------------------------------------------------------------------------------------------
// Growing arrays of fixed-stride items: a directory of chunks, doubled by copy.

struct Chunks {
  std::atomic<u64> directory;  // offset of u64 chunk offsets
  u32 directory_capacity;
  u32 stride;
  u32 log2_items;  // in a chunk
  u32 chunk_count;

  NOWGRAPH_INLINE u64 place(const Arena& arena, u32 index) const {
    const u64* chunks = arena.at<u64>(directory.load(std::memory_order_acquire));
    return chunks[index >> log2_items] + static_cast<u64>(index & ((1u << log2_items) - 1)) * stride;
  }
  NOWGRAPH_INLINE char* item(const Arena& arena, u32 index) const { return arena.at<char>(place(arena, index)); }
};

// ------------------------------------------------------------------------------------------------------------------
// Hash maps of u32 values: 1,024 shards that grow on their own, so that no growth is a pause. A slot is one atomic word
// [high half of the hash:32 | value + 1:32]; the value's own key is compared by the caller.

inline constexpr u32 MAP_SHARDS = 1024;
inline constexpr u64 SLOT_ERASED = 0xFFFFFFFFull;

struct MapShard {
  std::atomic<u64> word;  // offset of the slots in 32 B units << 6 | log2 of their number; 0: empty
  u32 used;               // the writer's count, erased ones included
  u32 reserved;
};
struct Map {
  MapShard shards[MAP_SHARDS];
};
NOWGRAPH_INLINE MapShard& shard_of(Map& map, u64 hash) { return map.shards[hash & (MAP_SHARDS - 1)]; }
NOWGRAPH_INLINE const MapShard& shard_of(const Map& map, u64 hash) { return map.shards[hash & (MAP_SHARDS - 1)]; }

// A shard's slots as one load of its word shows them; base nullptr: empty.
struct MapSlots {
  std::atomic<u64>* base;
  u64 mask;
};
NOWGRAPH_INLINE MapSlots slots_of(const Arena& arena, const MapShard& shard) {
  const u64 word = shard.word.load(std::memory_order_acquire);
  if (word == 0) return {nullptr, 0};
  return {arena.at<std::atomic<u64>>((word >> 6) << 5), (u64{1} << (word & 63)) - 1};
}

// Integer keys below 2^32 that stand close together are found by one load: pages of row + 1, allowed as long as they
// take little more than a map would. A key whose page was not allowed when it came is in the table's map instead.
inline constexpr u32 DENSE_PAGE_LOG2 = 13;
inline constexpr u32 DENSE_PAGE_KEYS = 1u << DENSE_PAGE_LOG2;
inline constexpr i64 DENSE_KEY_MAX = (i64{1} << 32) - 1;
// What one table's pages may take: a start, for keys that come in no order, and then half of the slots filled at worst,
// as in a map. Their directory is held to the start alone.
inline constexpr u64 DENSE_ARENA_SHARE = 256;
inline constexpr u64 DENSE_BYTES_PER_ROW = 8;

// What one load of `TableHeader::dense` shows; replaced by a larger copy, the old one stays for readers that are in it.
struct DenseKeys {
  u64 page_count;
  std::atomic<u64> pages[];  // offset of DENSE_PAGE_KEYS std::atomic<u32>, 0 where there is none
};

// The pages of a table's dense keys as one look shows them, for look-ups one after another.
struct DensePages {
  const Arena& arena;
  const DenseKeys* keys;  // nullptr: none

  // The slot of an integer key, or nullptr where no page covers it.
  NOWGRAPH_INLINE std::atomic<u32>* slot(i64 key) const {
    const u64 page = static_cast<u64>(key) >> DENSE_PAGE_LOG2;
    if (keys == nullptr || page >= keys->page_count) return nullptr;
    const u64 slots = keys->pages[page].load(std::memory_order_acquire);
    return slots == 0 ? nullptr : arena.at<std::atomic<u32>>(slots) + (key & (DENSE_PAGE_KEYS - 1));
  }
  NOWGRAPH_INLINE u32 row(i64 key) const {
    const std::atomic<u32>* found = slot(key);
    return found == nullptr ? NONE : found->load(std::memory_order_acquire) - 1;  // 0, empty, becomes NONE
  }
};

// A code's string, and how many cells hold it: a string that no cell holds is erased, its code is never given again.
struct CodeEntry {
  u64 string;  // offset of {u32 bytes, ...}
  u64 uses;    // the writer's count
};

struct Dictionary {
  u64 map;       // offset of Map: string -> code
  Chunks codes;  // code -> CodeEntry
  std::atomic<u32> size;  // codes in use, the null code counted
};

// ------------------------------------------------------------------------------------------------------------------

struct ColumnHeader {
  char name[MAX_NAME_BYTES];
  Kind kind;
  u8 joined;  // multicategorical: the dictionary's strings are joined sets
  u8 is_outcome;
  u8 reserved;
  u32 dim;           // of an embedding
  u32 offset;        // of the cell in the record, or in the slot
  u32 kind_index;    // among the table's columns of this kind; for embeddings the first component's index
  u64 dictionary;    // offset of Dictionary, for coded ones
};

struct LinkHeader {
  char name[MAX_NAME_BYTES];
  u32 child;
  u32 parent;
  u32 index_in_child;   // which of the child's parents
  u32 word_in_parent;   // which of the parent's list words
  u32 erases;           // 1: the child is its parent's own, and is erased with it
};

// What is the same of all rows of a table, so that a row that is only passed need not be read.
enum class Shape : u8 {
  empty = 0,
  bare = 1,      // every row is known by a foreign key alone
  timeless = 2,  // every row is an insert without time, unchanged since
  mixed = 3,
};

// What erasures have removed of a table, ever.
struct ErasedCounts {
  std::atomic<u64> rows;      // that lost all their versions, or their key
  std::atomic<u64> versions;
  std::atomic<u64> links;     // entries of its rows in their parents' lists
  std::atomic<u64> strings;   // of its dictionaries
};

struct TableHeader {
  char name[MAX_NAME_BYTES];
  KeyKind key_kind;
  u8 has_key;
  u8 has_time;
  KnownTimeKind known_time;
  bool columns_on_disk;
  u32 key_parts;
  u8 key_part_is_text[16];
  i64 lateness_us;  // INT64_MAX: no bound
  i64 future_us;
  i64 retention_age_us;  // INT64_MAX: none
  u32 retention_degree;  // NONE: none
  u32 stride;
  u32 event_offset;   // known time follows
  u32 version_offset;
  u32 parents_offset;
  u32 cells_offset;
  u32 link_count;       // to parents
  u32 child_link_count; // list words
  u32 links[MAX_LINKS];        // index of each link to a parent
  u32 child_links[MAX_LINKS];  // index of each link from a child, in word order
  u32 column_count;
  u32 kind_counts[5];  // columns of each kind; embeddings count components
  u64 columns;         // offset of ColumnHeader[column_count]
  std::atomic<u64> dense;   // offset of DenseKeys; 0: none
  std::atomic<u32> mapped;  // whether any key is in the map
  u64 map;                  // offset of Map
  Chunks rows;
  Chunks slots;    // in the columns' file, where columns_on_disk
  u32 slot_count;  // the writer's
  Chunks keys;  // i64, or the arena offset of the key's bytes: apart, as sampling never asks for them
  std::atomic<u32> row_count;  // written, published or not
  std::atomic<i64> latest_event_us;
  std::atomic<Shape> shape;  // widened before what widens it is published
  std::atomic<u8> moved;     // 1 before any row's versions or retention can hide or move it: see STRUCTURAL
  std::atomic<u16> late_changes;  // versions chained behind a newer one, modulo 2^16; counted before `changes`
  std::atomic<u32> changes;       // versions chained, published or not, modulo 2^32
  ErasedCounts erased;
};

// What a pinned reader may see: whole batches, nothing of the one being applied. Two of them, used in turn.
struct PublishedState {
  u64 sequence;  // events applied
  u32 row_limit[MAX_TABLES];
  u32 partition_count;
  i64 watermark_us;
  i64 offsets[MAX_PARTITIONS];
};

struct PartitionName {
  u64 topic;  // offset of {u32 bytes, ...}
  i32 partition;
  u32 reserved;
};

struct GraphHeader {
  u32 table_count;
  u32 link_count;
  u64 tables[MAX_TABLES];
  LinkHeader links[MAX_LINKS];
  Chunks versions;              // units
  std::atomic<u64> turn;        // even: published[0] holds, odd: published[1]
  PublishedState published[2];
  PartitionName partitions[MAX_PARTITIONS];
  std::atomic<u64> evictions;   // counts retention passes: row indices may have become meaningless
  std::atomic<u64> writer_pulse_us;
  std::atomic<u64> erasures;        // how often more was erased than before
  std::atomic<u64> overwrites_due;  // erased bytes that wait until no reader can reach them: so many places
};

}  // namespace nowgraph
