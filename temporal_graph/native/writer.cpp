#include "writer.hpp"

#include <cmath>
#include <ctime>
#include <tuple>

#include "content.hpp"

namespace nowgraph {

namespace {

i64 clock_us() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<i64>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1'000;
}

template <class T>
void publish_value(T& to, T value) {
  reinterpret_cast<std::atomic<T>*>(&to)->store(value, std::memory_order_release);
}

}  // namespace

Writer::Writer(Arena& arena)
    : arena_(arena),
      graph_(*arena.at<GraphHeader>(arena.header().graph_offset)),
      reader_(arena),
      catalog_(arena),
      decoder_(arena, catalog_),
      blocks_(arena),
      adjacency_(arena, blocks_),
      states_(graph_.table_count) {
  u64 largest_chunk = 0;
  for (u32 t = 0; t < graph_.table_count; ++t) {
    const TableHeader& table = table_of(t);
    largest_chunk = std::max<u64>(largest_chunk, u64{table.stride} << CHUNK_ROWS_LOG2);
    std::vector<char>& blank = states_[t].blank;
    blank.assign(table.stride, 0);
    store<i64>(blank.data() + table.event_offset, ALWAYS_US);
    store<i64>(blank.data() + table.event_offset + 8, BARE_US);
    store<u32>(blank.data() + table.version_offset, NO_VERSION);
    for (u32 l = 0; l < table.link_count; ++l) store<u32>(blank.data() + table.parents_offset + 4 * l, NONE);
    const ColumnHeader* columns = reader_.columns(table);
    for (u32 c = 0; c < table.column_count; ++c) {
      char* cell = blank.data() + columns[c].offset;
      switch (columns[c].kind) {
        case Kind::numerical: store<double>(cell, std::nan("")); break;
        case Kind::timestamp: store<i64>(cell, NULL_TIMESTAMP_US); break;
        case Kind::coded: store<u32>(cell, CODE_NULL); break;
        case Kind::boolean: store<u8>(cell, BOOLEAN_NULL); break;
        case Kind::embedding:
          for (u32 i = 0; i < columns[c].dim; ++i) store<float>(cell + 4 * i, std::nanf(""));
          break;
      }
    }
  }
  headroom_ = largest_chunk * (graph_.table_count + 1) + (u64{4} << 20);
  publish();
}

// An event is applied whole or not at all: room for the worst it can ask for is made sure of before it begins.
void Writer::ensure_headroom(u64 event_bytes) const {
  if (arena_.free_bytes() < headroom_ + 16 * event_bytes)
    throw ArenaFull("arena of " + std::to_string(arena_.bytes()) + " bytes is full: " +
                    std::to_string(arena_.free_bytes()) + " bytes left");
}

void Writer::apply(std::string_view bytes, u64 index, const LogPosition& at, bool backfill, Applied& result) {
  ensure_headroom(bytes.size());
  Refusal refusal;
  if (!decoder_.decode(bytes, change_, refusal) || !judge(table_of(change_.table), at, backfill, change_, refusal) ||
      !position_key(at, change_, refusal)) {
    result.rejected.push_back({index, refusal.reason, std::move(refusal.detail)});
    return;
  }
  TableHeader& table = table_of(change_.table);
  ++sequence_;
  const u32 row = find(table, change_.key);
  bool changed = true;
  if (row == NONE && change_.operation == Operation::insert) {
    insert_row(change_.table, table, change_);
  } else {
    const u32 target = row == NONE ? create_row(change_.table, table, change_.key) : row;
    changed = add_version(change_.table, table, target, change_);
  }
  if (!changed) {
    --sequence_;
    ++result.duplicate;
    return;
  }
  ++result.applied;
  if (change_.event_time_us > table.latest_event_us.load(std::memory_order_relaxed))
    table.latest_event_us.store(change_.event_time_us, std::memory_order_release);
}

// Fills in the known time and refuses what lies beyond the table's bounds, judged from the record alone.
bool Writer::judge(const TableHeader& table, const LogPosition& at, bool backfill, RowChange& change,
                   Refusal& refusal) const {
  // A row of a table without time is always visible; a change of it may still say when it happened.
  if (!table.has_time && change.operation == Operation::insert) change.has_event_time = false;
  if (!table.has_time && !change.has_event_time) change.has_known_time = false;
  if (!change.has_event_time) {
    if (table.has_time) {
      refusal = {"missing_event_time", "table \"" + std::string(table.name) + "\" has a time column, the event has no event time"};
      return false;
    }
    change.event_time_us = ALWAYS_US;
  }
  if (change.event_time_us == ALWAYS_US && change.has_event_time && table.has_time) {
    refusal = {"bad_event_time", "the event time is the reserved least value"};
    return false;
  }
  if (!change.has_known_time) {
    const bool from_broker = table.known_time == KnownTimeKind::broker && !backfill && at.broker_time_us != ALWAYS_US;
    change.known_time_us = from_broker && change.has_event_time ? at.broker_time_us : change.event_time_us;
  }
  if (change.known_time_us == BARE_US || (change.has_known_time && change.known_time_us == ALWAYS_US && table.has_time)) {
    refusal = {"bad_known_time", "the known time is a reserved value"};
    return false;
  }
  if (backfill || !change.has_event_time || change.event_time_us == ALWAYS_US) return true;
  const __int128 delay = static_cast<__int128>(change.known_time_us) - change.event_time_us;
  if (delay > table.lateness_us) {
    refusal = {"late", "known " + std::to_string(static_cast<i64>(delay)) + " us after it happened, the table's bound is " + std::to_string(table.lateness_us)};
    return false;
  }
  if (-delay > table.future_us) {
    refusal = {"future", "happens " + std::to_string(static_cast<i64>(-delay)) + " us after it was known, the table's bound is " + std::to_string(table.future_us)};
    return false;
  }
  return true;
}

// A table without a primary key: the source position is the key, so that a replay finds the same row.
bool Writer::position_key(const LogPosition& at, RowChange& change, Refusal& refusal) {
  if (change.key.present) return true;
  if (at.known) {
    position_key_.assign(at.topic).append("/").append(std::to_string(at.partition)).append("/").append(std::to_string(at.offset));
  } else if (!change.event_id.empty()) {
    position_key_.assign(change.event_id);
  } else {
    refusal = {"missing_key", "a row without a primary key needs a source position or an event id"};
    return false;
  }
  change.key.present = true;
  change.key.integer = false;
  change.key.bytes = position_key_;
  return true;
}

// ---- rows ----------------------------------------------------------------------------------------------------------

void Writer::grow_chunks(Chunks& chunks) {
  if (chunks.chunk_count == chunks.directory_capacity) {
    // The old directory stays where it is: a reader may be in it, and it is small.
    const u64 grown = arena_.allocate(16ull * chunks.directory_capacity);
    std::memcpy(arena_.at<char>(grown), arena_.at<char>(chunks.directory.load(std::memory_order_relaxed)), 8ull * chunks.chunk_count);
    chunks.directory_capacity *= 2;
    chunks.directory.store(grown, std::memory_order_release);
  }
  const u64 chunk = arena_.allocate(u64{chunks.stride} << chunks.log2_items);
  publish_value(arena_.at<u64>(chunks.directory.load(std::memory_order_relaxed))[chunks.chunk_count], chunk);
  ++chunks.chunk_count;
}

char* Writer::next_record(TableHeader& table, u32 table_index) {
  const u32 row = table.row_count.load(std::memory_order_relaxed);
  if (row >= EVICTED) throw ArenaFull("table " + std::string(table.name) + " holds 2^32 rows at most");
  if ((row >> CHUNK_ROWS_LOG2) == table.rows.chunk_count) grow_chunks(table.rows);
  char* record = table.rows.item(arena_, row);
  const std::vector<char>& blank = states_[table_index].blank;
  std::memcpy(record, blank.data(), blank.size());
  return record;
}

u32 Writer::create_row(u32 table_index, TableHeader& table, const KeyValue& key) {
  TableState& state = states_[table_index];
  char* record = next_record(table, table_index);
  const u32 row = table.row_count.load(std::memory_order_relaxed);
  u64 hash;
  if (key.integer) {
    store<i64>(record + table.key_offset, key.number);
    hash = hash_integer(key.number);
  } else {
    store<u64>(record + table.key_offset, keep_string(key.bytes, state.key_string_bytes));
    hash = hash_bytes(key.bytes.data(), key.bytes.size());
  }
  table.row_count.store(row + 1, std::memory_order_release);
  map_insert(table.map, hash, row, state.key_map_bytes);
  return row;
}

u32 Writer::find_or_create(u32 table_index, const KeyValue& key) {
  TableHeader& table = table_of(table_index);
  const u32 row = find(table, key);
  return row != NONE ? row : create_row(table_index, table, key);
}

void Writer::insert_row(u32 table_index, TableHeader& table, const RowChange& change) {
  const u32 row = create_row(table_index, table, change.key);
  char* record = table.rows.item(arena_, row);
  store<i64>(record + table.event_offset, change.event_time_us);
  store<i64>(record + table.event_offset + 8, change.known_time_us);
  for (const CellValue& cell : change.cells) {
    if (cell.is_null) continue;
    if (cell.index < table.column_count)
      store_cell(table_index, table, cell, record + reader_.columns(table)[cell.index].offset);
    else
      store_cell(table_index, table, cell, record + table.parents_offset + 4 * (cell.index - table.column_count));
  }
  link_row(table, row, record);
}

void Writer::link_row(const TableHeader& table, u32 row, const char* record) {
  const u32 time = tick_of(Reader::inline_visible_us(table, record)) << 1;
  for (u32 l = 0; l < table.link_count; ++l) {
    const u32 parent = Reader::inline_parent(table, record, l);
    if (parent != NONE) put_entry(graph_.links[table.links[l]], parent, {row, time});
  }
}

// Writes a cell's payload and returns its size; `to` has room for it.
u32 Writer::store_cell(u32 table_index, TableHeader& table, const CellValue& cell, char* to) {
  if (cell.index >= table.column_count) {
    const LinkHeader& link = graph_.links[table.links[cell.index - table.column_count]];
    store<u32>(to, find_or_create(link.parent, cell.key));
    return 4;
  }
  ColumnHeader& column = arena_.at<ColumnHeader>(table.columns)[cell.index];
  switch (column.kind) {
    case Kind::numerical: store<double>(to, cell.number); return 8;
    case Kind::timestamp: store<i64>(to, cell.integer); return 8;
    case Kind::coded: store<u32>(to, code_of(column, cell.text, states_[table_index].dictionary_bytes)); return 4;
    case Kind::boolean: store<u8>(to, cell.boolean ? 1 : 0); return 1;
    case Kind::embedding: std::memcpy(to, cell.vector, 4ull * column.dim); return 4 * column.dim;
  }
  return 0;
}

// ---- lists ---------------------------------------------------------------------------------------------------------

int Writer::compare_keys(const TableHeader& table, u32 a, u32 b) const {
  if (a == b) return 0;
  const char* left = reader_.row(table, a) + table.key_offset;
  const char* right = reader_.row(table, b) + table.key_offset;
  if (table.key_kind == KeyKind::integer) return load<i64>(left) < load<i64>(right) ? -1 : 1;
  std::string_view x = reader_.string_at(load<u64>(left));
  std::string_view y = reader_.string_at(load<u64>(right));
  if (table.key_parts == 1) return x.compare(y);
  for (u32 part = 0; part < table.key_parts; ++part) {  // tagged parts: integers by value, texts by bytes
    if (x[0] == 2) {
      const i64 i = load<i64>(x.data() + 1), j = load<i64>(y.data() + 1);
      if (i != j) return i < j ? -1 : 1;
      x.remove_prefix(9);
      y.remove_prefix(9);
    } else {
      const std::string_view s = x.substr(5, load<u32>(x.data() + 1)), t = y.substr(5, load<u32>(y.data() + 1));
      if (const int order = s.compare(t); order != 0) return order;
      x.remove_prefix(5 + s.size());
      y.remove_prefix(5 + t.size());
    }
  }
  return 0;
}

bool Writer::entry_before(const TableHeader& child, const Entry& a, const Entry& b) const {
  if (a.tick() != b.tick()) return a.tick() < b.tick();
  const i64 left = reader_.open_time_us(child, a), right = reader_.open_time_us(child, b);
  if (left != right) return left < right;
  return compare_keys(child, reader_.child(a), reader_.child(b)) < 0;
}

void Writer::put_entry(const LinkHeader& link, u32 parent_row, Entry entry) {
  const TableHeader& child = table_of(link.child);
  char* record = table_of(link.parent).rows.item(arena_, parent_row);
  auto& word = reinterpret_cast<std::atomic<u64>*>(record)[link.word_in_parent];
  adjacency_.insert(word, entry, [&](const Entry& a, const Entry& b) { return entry_before(child, a, b); });
}

// ---- versions ------------------------------------------------------------------------------------------------------

u32 Writer::version_units(u32 bytes) {
  const u32 units = (bytes + VERSION_UNIT_BYTES - 1) / VERSION_UNIT_BYTES;
  if (version_next_ + units > version_end_) {
    const u32 first = graph_.versions.chunk_count << VERSION_CHUNK_LOG2;
    if (first >= NO_VERSION - (1u << VERSION_CHUNK_LOG2)) throw ArenaFull("the version pool is full");
    grow_chunks(graph_.versions);
    version_next_ = first;
    version_end_ = first + (1u << VERSION_CHUNK_LOG2);
  }
  const u32 unit = version_next_;
  version_next_ += units;
  version_bytes_ += u64{units} * VERSION_UNIT_BYTES;
  return unit;
}

u32 Writer::write_version(u32 table_index, TableHeader& table, const RowChange& change) {
  const u32 total = table.column_count + table.link_count;
  const bool whole = change.operation == Operation::insert;
  u32 bytes = sizeof(VersionRecord);
  for (const CellValue& cell : change.cells) bytes += 4 + (reader_.payload_bytes(table, cell.index) + 3) / 4 * 4;
  if (whole) bytes += 4 * (total - static_cast<u32>(change.cells.size()));
  const u32 unit = version_units(bytes);
  char* at = graph_.versions.item(arena_, unit);
  auto* version = reinterpret_cast<VersionRecord*>(at);
  char* cursor = at + sizeof(VersionRecord);
  u8 flags = 0;
  u16 count = 0;
  auto cell = change.cells.begin();
  for (u32 index = 0; index < total; ++index) {
    const bool given = cell != change.cells.end() && cell->index == index;
    if (!given && !whole) continue;
    const bool is_null = !given || cell->is_null;
    store<u16>(cursor, static_cast<u16>(index));
    store<u16>(cursor + 2, is_null);
    cursor += 4;
    if (!is_null) cursor += (store_cell(table_index, table, *cell, cursor) + 3) / 4 * 4;
    if (index >= table.column_count) flags |= SETS_LINKS;
    if (given) ++cell;
    ++count;
  }
  version->operation = static_cast<u8>(change.operation);
  version->flags = flags;
  version->cell_count = count;
  version->event_time_us = change.event_time_us;
  version->known_time_us = change.known_time_us;
  version->sequence = sequence_;
  ContentHash hash;
  for (u32 index = 0; index < total; ++index)
    if (const CellRef ref = reader_.version_cell(table, *version, index); ref.set && change.operation != Operation::remove)
      hash_cell(reader_, table, index, ref.payload, hash);
  version->content = hash.value();
  return unit;
}

// Puts the version at its place in the row's chain. False when the row has it already, known no later.
bool Writer::chain_version(const TableHeader& table, char* record, u32 unit) {
  auto& version = *reinterpret_cast<VersionRecord*>(graph_.versions.item(arena_, unit));
  auto& head = Reader::version_head(table, record);
  const bool bare = Reader::inline_bare(table, record);
  if (!bare && version.operation == static_cast<u8>(Operation::insert) &&
      Reader::inline_event_us(table, record) == version.event_time_us &&
      reader_.inline_content(table, record) == version.content) {
    if (Reader::inline_known_us(table, record) <= version.known_time_us) return false;
    version.flags |= REPLACES_INLINE;
  }
  const auto next = [](const std::atomic<u32>* link) { return version_unit(link->load(std::memory_order_relaxed)); };
  const auto record_of = [&](u32 at) { return reinterpret_cast<VersionRecord*>(graph_.versions.item(arena_, at)); };
  std::atomic<u32>* doubled = nullptr;  // points at the same change, known later
  for (std::atomic<u32>* link = &head; next(link) != NO_VERSION; link = &record_of(next(link))->next) {
    const VersionRecord& other = *record_of(next(link));
    if (other.event_time_us != version.event_time_us || other.operation != version.operation ||
        other.content != version.content)
      continue;
    if (other.known_time_us <= version.known_time_us) return false;
    version.flags |= other.flags & REPLACES_INLINE;
    doubled = link;
  }
  const bool structural = bare || (version.flags & (SETS_LINKS | REPLACES_INLINE)) != 0 ||
                          version.operation == static_cast<u8>(Operation::remove);
  const u32 flag = structural ? STRUCTURAL : head.load(std::memory_order_relaxed) & STRUCTURAL;
  const auto point = [&](std::atomic<u32>* link, u32 to) {
    link->store(link == &head ? flag | to : to, std::memory_order_release);
  };
  if (doubled != nullptr) point(doubled, next(&record_of(next(doubled))->next));
  const auto key = [](const VersionRecord& v) {
    return std::tuple(v.event_time_us, v.known_time_us, v.operation, v.content);
  };
  std::atomic<u32>* place = &head;
  while (next(place) != NO_VERSION && key(*record_of(next(place))) > key(version)) place = &record_of(next(place))->next;
  version.next.store(next(place), std::memory_order_relaxed);
  point(place, unit);
  if (place != &head) point(&head, next(&head));
  return true;
}

bool Writer::add_version(u32 table_index, TableHeader& table, u32 row, const RowChange& change) {
  char* record = table.rows.item(arena_, row);
  const u64 bytes_before = version_bytes_;
  const u32 unit = write_version(table_index, table, change);
  thread_local std::vector<std::vector<Reader::Interval>> before;
  before.resize(table.link_count);
  const bool links_matter = table.link_count > 0 && (reader_.version(unit)->flags & SETS_LINKS);
  if (links_matter)
    for (u32 l = 0; l < table.link_count; ++l) reader_.intervals(table, record, l, UINT64_MAX, before[l]);
  if (!chain_version(table, record, unit)) {
    version_next_ = unit;  // the last unit taken: a duplicate gives it back
    version_bytes_ = bytes_before;
    return false;
  }
  ++versions_;
  if (links_matter) open_links(table, row, record, before);
  return true;
}

// Entries for the link intervals that are new. Those that are no more stay behind: readers check each against the row.
void Writer::open_links(const TableHeader& table, u32 row, const char* record,
                        const std::vector<std::vector<Reader::Interval>>& before) {
  thread_local std::vector<Reader::Interval> after;
  const bool has_inline = !Reader::inline_bare(table, record);
  for (u32 l = 0; l < table.link_count; ++l) {
    reader_.intervals(table, record, l, UINT64_MAX, after);
    const LinkHeader& link = graph_.links[table.links[l]];
    for (const Reader::Interval& interval : after) {
      const auto same = [&](const Reader::Interval& other) {
        return other.open_time_us == interval.open_time_us && other.parent == interval.parent;
      };
      if (std::any_of(before[l].begin(), before[l].end(), same)) continue;
      if (has_inline && Reader::inline_parent(table, record, l) == interval.parent &&
          Reader::inline_visible_us(table, record) == interval.open_time_us)
        continue;  // the row's first entry, which is never taken away
      const u32 unit = version_units(sizeof(LinkOpen));
      *reinterpret_cast<LinkOpen*>(graph_.versions.item(arena_, unit)) = {row, 0, interval.open_time_us};
      const Entry entry{unit, tick_of(interval.open_time_us) << 1 | 1u};
      const TableHeader& parent = table_of(link.parent);
      const TableHeader& child = table_of(link.child);
      const char* parent_record = parent.rows.item(arena_, interval.parent);
      const bool present = adjacency_.contains(Reader::list_word_of(parent_record, link.word_in_parent), entry,
                                               [&](const Entry& a, const Entry& b) { return entry_before(child, a, b); });
      if (!present) put_entry(link, interval.parent, entry);
    }
  }
}

// ---- strings, dictionaries, maps -----------------------------------------------------------------------------------

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
  if (u64{shard.used} * 10 >= capacity * 7) {
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

// ---- publishing ----------------------------------------------------------------------------------------------------

void Writer::set_position(std::string_view topic, i32 partition, i64 next_offset) {
  const auto [found, fresh] = partitions_.try_emplace({std::string(topic), partition}, static_cast<u32>(offsets_.size()));
  if (fresh) {
    if (offsets_.size() == MAX_PARTITIONS) throw ArenaFull("more than " + std::to_string(MAX_PARTITIONS) + " partitions");
    u64 unused = 0;
    graph_.partitions[found->second] = {keep_string(topic, unused), partition, 0};
    offsets_.push_back(next_offset);
  }
  offsets_[found->second] = next_offset;
}

void Writer::publish() {
  const u64 turn = graph_.turn.load(std::memory_order_relaxed) + 1;
  PublishedState& state = graph_.published[turn & 1];
  i64 watermark = ALWAYS_US;
  publish_value(state.sequence, sequence_);
  for (u32 t = 0; t < graph_.table_count; ++t) {
    const TableHeader& table = table_of(t);
    publish_value(state.row_limit[t], table.row_count.load(std::memory_order_relaxed));
    watermark = std::max(watermark, table.latest_event_us.load(std::memory_order_relaxed));
  }
  for (u32 p = 0; p < offsets_.size(); ++p) publish_value(state.offsets[p], offsets_[p]);
  publish_value(state.partition_count, static_cast<u32>(offsets_.size()));
  publish_value(state.watermark_us, watermark);
  graph_.writer_pulse_us.store(static_cast<u64>(clock_us()), std::memory_order_relaxed);
  graph_.turn.store(turn, std::memory_order_seq_cst);
  blocks_.reclaim(++publishes_ % 64 == 0);
}

}  // namespace nowgraph
