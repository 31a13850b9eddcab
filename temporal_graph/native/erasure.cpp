// The writer's part that forgets: a key's changes up to a time, the rows that were its own, and every byte of them.
//
//   key, until ─► raise, and spread to what the key owns ─► purge: each row's versions anew, without those that are erased
//   ─► unlink, relink ─► bury rows that nothing is left of ─► overwrite, once no reader can reach the bytes
//
// What is erased does not depend on the order of arrival. A row is its parent's own if any change of it ever named the
// parent by a link that erases; a change of a row is erased if it happened at or before the latest time until which the
// row, or one whose own it is, was erased. Changes that are gone still say whose own the row was: see ErasedKey::owners.
#include <map>
#include <set>
#include <unordered_set>

#include "stored_change.hpp"
#include "writer.hpp"

namespace nowgraph {

// One erasure, or what a change of an erased parent's row sets off.
struct Writer::Erasing {
  using RowId = std::pair<u32, u32>;  // table, row

  explicit Erasing(Writer& writer) : writer(writer) {}

  Writer& writer;
  std::vector<KeyDigest> raised;
  std::set<RowId> affected;                               // rows to be purged
  std::map<RowId, std::unordered_set<u32>> unlinked;      // by link and parent's row: the children whose entries go
  std::vector<std::pair<RowId, std::vector<RowChange>>> relinked;
  std::set<RowId> emptied;           // rows that have lost all their versions
  std::map<u32, i64> entries_gone;  // by the children's table: those that came again do not count

  // An erasure of this very key; false when it was erased until then already.
  bool ask(u32 table, const KeyValue& key, i64 until_us) {
    const KeyDigest digest = Erasures::digest_of(writer.table_of(table).name, key);
    ErasedKey& erased = enter(digest, table, key);
    if (erased.asked_us >= until_us) return false;
    erased.asked_us = until_us;
    raise(digest, erased, until_us);
    return true;
  }
  bool raise(u32 table, const KeyValue& key, i64 until_us) {
    const KeyDigest digest = Erasures::digest_of(writer.table_of(table).name, key);
    return raise(digest, enter(digest, table, key), until_us);
  }
  ErasedKey& enter(const KeyDigest& digest, u32 table, const KeyValue& key) {
    ErasedKey& erased = writer.erasures_.enter(digest, Erasures::mark_of(key));
    if (erased.table == NONE) {
      erased.table = table;
      erased.row = writer.find(writer.table_of(table), key);
    }
    return erased;
  }
  bool raise(const KeyDigest& digest, ErasedKey& erased, i64 until_us) {
    if (erased.until_us >= until_us) return false;
    erased.until_us = until_us;
    raised.push_back(digest);
    return true;
  }

  void run() {
    spread();
    for (const auto& [table, row] : affected) purge(table, row);
    unlink();
    for (const auto& [id, changes] : relinked) {
      const u64 before = writer.adjacency_.bytes().entries;
      relink(id.first, id.second, changes);
      entries_gone[id.first] -= static_cast<i64>(writer.adjacency_.bytes().entries - before);
    }
    for (const auto& [table, row] : affected) bury(table, row);
    for (const auto& [place, children] : unlinked) bury(writer.graph_.links[place.first].parent, place.second);
    for (const auto& [table, gone] : entries_gone)
      writer.table_of(table).erased.links.fetch_add(static_cast<u64>(std::max<i64>(gone, 0)), std::memory_order_relaxed);
    for (const auto& [table, row] : emptied) writer.table_of(table).erased.rows.fetch_add(1, std::memory_order_relaxed);
    writer.graph_.erasures.fetch_add(1, std::memory_order_seq_cst);
    writer.graph_.evictions.fetch_add(1, std::memory_order_seq_cst);
  }

  void spread() {
    for (std::size_t first = 0, i = 0; i < raised.size(); first = i) {
      for (; i < raised.size(); ++i) {
        const KeyDigest digest = raised[i];
        const ErasedKey& erased = *writer.erasures_.find(digest);
        for (const KeyDigest& owned : writer.erasures_.owned_by(digest))
          raise(owned, *writer.erasures_.find(owned), erased.until_us);
        if (erased.row == NONE || is_dropped(head_of(erased.table, erased.row))) continue;
        affected.insert({erased.table, erased.row});
        spread_from(erased.table, erased.row, erased.until_us);
      }
      spread_from_dropped(first);
    }
  }

  void spread_from(u32 table_index, u32 row, i64 until_us) {
    const TableHeader& table = writer.table_of(table_index);
    for (u32 l = 0; l < table.child_link_count; ++l) {
      const LinkHeader& link = writer.graph_.links[table.child_links[l]];
      each_child(link, row, [&](u32 child) {
        if (link.erases)
          raise(link.child, stored_key(writer.reader_, writer.table_of(link.child), child), until_us);
        else
          affected.insert({link.child, child});
        return true;
      });
    }
  }

  // Rows that retention dropped are under no key, and in a list only by chance: what is theirs may be there still.
  void spread_from_dropped(std::size_t first) {
    std::vector<std::unordered_set<u32>> marks(writer.graph_.table_count);
    for (std::size_t i = first; i < raised.size(); ++i) {
      const ErasedKey& erased = *writer.erasures_.find(raised[i]);
      marks[erased.table].insert(erased.mark);
    }
    const auto until_of = [&](u32 table_index, u32 row) {
      const TableHeader& table = writer.table_of(table_index);
      const KeyValue key = stored_key(writer.reader_, table, row);
      if (!marks[table_index].contains(Erasures::mark_of(key))) return NOT_ERASED_US;
      const ErasedKey* erased = writer.erasures_.find(table.name, key);
      return erased == nullptr ? NOT_ERASED_US : erased->until_us;
    };
    for (u32 t = 0; t < writer.graph_.table_count; ++t) {
      const TableHeader& table = writer.table_of(t);
      if (table.retention_age_us == INT64_MAX || table.child_link_count == 0) continue;
      for (u32 row = 0; row < table.row_count.load(std::memory_order_relaxed); ++row) {
        if (head_of(t, row) != EVICTED) continue;
        if (const i64 until_us = until_of(t, row); until_us != NOT_ERASED_US) spread_from(t, row, until_us);
        for (u32 l = 0; l < table.link_count; ++l) {
          const LinkHeader& link = writer.graph_.links[table.links[l]];
          const u32 owner = Reader::inline_parent(table, table.rows.item(writer.arena_, row), l);
          if (!link.erases || owner == NONE || marks[link.parent].empty()) continue;
          if (const i64 until_us = until_of(link.parent, owner); until_us != NOT_ERASED_US)
            raise(t, stored_key(writer.reader_, table, row), until_us);
        }
      }
    }
  }

  // Rows of which any version names the parent's row; a bound on the lists' degree leaves only the table to tell.
  template <class Visit>
  void each_child(const LinkHeader& link, u32 parent_row, Visit visit) const {
    const TableHeader& child = writer.table_of(link.child);
    const auto there = [&](u32 row) { return !is_dropped(head_of(link.child, row)); };
    if (child.retention_degree == NONE) {
      const char* record = writer.table_of(link.parent).rows.item(writer.arena_, parent_row);
      const List list = writer.reader_.list(Reader::list_word_of(record, link.word_in_parent));
      for (u32 i = 0; i < list.count; ++i)
        if (const u32 row = writer.reader_.child(writer.reader_.at(list, i)); there(row) && !visit(row)) return;
      return;
    }
    for (u32 row = 0; row < child.row_count.load(std::memory_order_relaxed); ++row) {
      if (!there(row)) continue;
      bool names = false;
      each_named(link.child, row, [&](u32 index, u32 parent) { names |= index == link.index_in_child && parent == parent_row; });
      if (names && !visit(row)) return;
    }
  }

  // Calls visit(link of the child, parent's row) for every parent that any of the row's versions names.
  template <class Visit>
  void each_named(u32 table_index, u32 row, Visit visit) const {
    const TableHeader& table = writer.table_of(table_index);
    const char* record = table.rows.item(writer.arena_, row);
    if (writer.inline_counts(table, record))
      for (u32 l = 0; l < table.link_count; ++l)
        if (const u32 parent = Reader::inline_parent(table, record, l); parent != NONE) visit(l, parent);
    writer.each_unit(head_of(table_index, row), [&](u32 unit) {
      writer.reader_.each_cell(table, *writer.reader_.version(unit), [&](u32 index, const char* payload) {
        if (index >= table.column_count && payload != nullptr) visit(index - table.column_count, load<u32>(payload));
      });
    });
  }

  u32 head_of(u32 table_index, u32 row) const {
    const TableHeader& table = writer.table_of(table_index);
    return Reader::version_head(table, table.rows.item(writer.arena_, row)).load(std::memory_order_relaxed);
  }

  // Cuts the links of a change to rows that are erased since, if it may keep them; true if any was cut.
  bool cut(const TableHeader& table, RowChange& change) const {
    bool any = false;
    for (CellValue& cell : change.cells) {
      if (cell.index < table.column_count || cell.is_null) continue;
      const LinkHeader& link = writer.graph_.links[table.links[cell.index - table.column_count]];
      if (link.erases) continue;
      const ErasedKey* parent = writer.erasures_.find(writer.table_of(link.parent).name, cell.key);
      if (parent != nullptr && change.event_time_us <= parent->until_us) any = cell.is_null = true;
    }
    return any;
  }

  // A change that is gone still says whose own the row was.
  void remember(const TableHeader& table, const KeyDigest& digest, const RowChange& change) const {
    for (const CellValue& cell : change.cells) {
      if (cell.index < table.column_count || cell.is_null) continue;
      const LinkHeader& link = writer.graph_.links[table.links[cell.index - table.column_count]];
      if (link.erases) writer.erasures_.own(digest, Erasures::digest_of(writer.table_of(link.parent).name, cell.key));
    }
  }

  // Writes a row's versions anew, without what is erased of them.
  void purge(u32 table_index, u32 row) {
    TableHeader& table = writer.table_of(table_index);
    char* record = table.rows.item(writer.arena_, row);
    const KeyValue key = stored_key(writer.reader_, table, row);
    const ErasedKey* erased = writer.erasures_.find(table.name, key);
    std::vector<u32> cells(table.column_count + table.link_count);
    for (u32 i = 0; i < cells.size(); ++i) cells[i] = i;
    std::vector<Reader::VersionKey> versions;
    writer.reader_.versions(table, record, UINT64_MAX, versions);
    std::vector<RowChange> kept;
    std::vector<u64> sequences;
    bool changed = false;
    for (const Reader::VersionKey& version : versions) {
      RowChange change;
      stored_change(writer.reader_, table, record, version, cells, change);
      if (erased != nullptr && version.event_time_us <= erased->until_us) {
        remember(table, Erasures::digest_of(table.name, key), change);
        changed = true;
        continue;
      }
      changed |= cut(table, change);
      kept.push_back(std::move(change));
      sequences.push_back(version.unit == NO_VERSION ? 0 : writer.reader_.version(version.unit)->sequence);
    }
    if (!changed) return;
    each_named(table_index, row, [&](u32 link, u32 parent) { unlinked[{table.links[link], parent}].insert(row); });
    if (kept.empty()) emptied.insert({table_index, row});
    table.erased.versions.fetch_add(versions.size() - kept.size(), std::memory_order_relaxed);
    replace(table_index, record, kept, sequences);
    if (table.link_count > 0 && !kept.empty()) relinked.push_back({{table_index, row}, std::move(kept)});
  }

  // The chain is built beside the row and then takes the place of the old one, the inline insert's too.
  void replace(u32 table_index, char* record, const std::vector<RowChange>& kept, const std::vector<u64>& sequences) {
    TableHeader& table = writer.table_of(table_index);
    std::vector<char> beside = writer.states_[table_index].blank;
    auto& beside_head = Reader::version_head(table, beside.data());
    beside_head.store(STRUCTURAL | writer.write_mark(), std::memory_order_relaxed);
    for (std::size_t i = 0; i < kept.size(); ++i) {
      const u32 unit = writer.write_version(table_index, table, kept[i]);
      reinterpret_cast<VersionRecord*>(writer.graph_.versions.item(writer.arena_, unit))->sequence = sequences[i];
      if (writer.chain_version(table, beside.data(), unit))
        ++writer.versions_;
      else
        writer.give_back(table, unit);
    }
    Writer::widen(table, Shape::mixed);
    table.moved.store(1, std::memory_order_release);
    const bool had_inline = writer.inline_counts(table, record);
    auto& head = Reader::version_head(table, record);
    const u32 old = head.load(std::memory_order_relaxed);
    head.store(STRUCTURAL | beside_head.load(std::memory_order_relaxed), std::memory_order_release);
    writer.arena_.written(&head, sizeof head);
    if (had_inline) writer.release_inline(table_index, table, record);
    writer.each_unit(old, [&](u32 unit) { writer.release_version(table, unit); });
  }

  // Takes the rows' entries out of their parents' lists, each list in one pass.
  void unlink() {
    for (const auto& [place, children] : unlinked) {
      const LinkHeader& link = writer.graph_.links[place.first];
      char* parent = writer.table_of(link.parent).rows.item(writer.arena_, place.second);
      std::atomic<u64>& word = Writer::list_word_in(parent, link);
      writer.ensure_headroom(list_count(word.load(std::memory_order_relaxed)));
      entries_gone[link.child] += writer.adjacency_.remove(word, [&](const Entry& entry) {
        if (!children.contains(writer.reader_.child(entry))) return false;
        if (entry.is_open()) writer.overwrite_later(&writer.reader_.link_open(entry.target), sizeof(LinkOpen));
        return true;
      });
    }
  }

  // Entries for what the versions that are left name.
  void relink(u32 table_index, u32 row, const std::vector<RowChange>& changes) {
    const TableHeader& table = writer.table_of(table_index);
    const char* record = table.rows.item(writer.arena_, row);
    std::vector<Reader::Interval> intervals;
    for (u32 l = 0; l < table.link_count; ++l) {
      const LinkHeader& link = writer.graph_.links[table.links[l]];
      writer.reader_.intervals(table, record, l, UINT64_MAX, intervals);
      for (const Reader::Interval& interval : intervals)
        writer.open_link(link, row, interval.parent, interval.open_time_us);
      for (const RowChange& change : changes)
        for (const CellValue& cell : change.cells) {
          if (cell.index != table.column_count + l || cell.is_null) continue;
          const u32 parent = writer.find(writer.table_of(link.parent), cell.key);
          if (std::none_of(intervals.begin(), intervals.end(), [&](const auto& each) { return each.parent == parent; }))
            writer.open_link(link, row, parent, visible_time_us(change.event_time_us, change.known_time_us));
        }
    }
  }

  // Forgets the key of a row without versions that no row names.
  void bury(u32 table_index, u32 row) {
    TableHeader& table = writer.table_of(table_index);
    char* record = table.rows.item(writer.arena_, row);
    auto& head = Reader::version_head(table, record);
    if (is_dropped(head.load(std::memory_order_relaxed))) return;
    std::vector<Reader::VersionKey> versions;
    writer.reader_.versions(table, record, UINT64_MAX, versions);
    if (!versions.empty()) return;
    bool named = false;
    for (u32 l = 0; l < table.child_link_count && !named; ++l)
      each_child(writer.graph_.links[table.child_links[l]], row, [&](u32) {
        named = true;
        return false;
      });
    if (named) return;
    if (ErasedKey* erased = writer.erasures_.find(table.name, stored_key(writer.reader_, table, row)); erased != nullptr)
      erased->row = NONE;
    Writer::widen(table, Shape::mixed);
    table.moved.store(1, std::memory_order_release);
    writer.forget_key(table, row);
    writer.each_unit(head.load(std::memory_order_relaxed), [&](u32 unit) { writer.release_version(table, unit); });
    head.store(ERASED, std::memory_order_release);
    writer.arena_.written(&head, sizeof head);
    const char* key = writer.reader_.key(table, row);
    if (table.key_kind == KeyKind::integer) {
      writer.overwrite_later(key, sizeof(i64));
    } else {
      const std::string_view bytes = writer.reader_.string_at(load<u64>(key));
      writer.overwrite_later(bytes.data() - 4, 4 + static_cast<u32>(bytes.size()));
    }
    emptied.insert({table_index, row});
  }
};

// An erasure names a time; one of the future would erase what has not happened.
bool Writer::judge_erasure(const LogPosition& at, RowChange& change, Refusal& refusal) const {
  if (!change.has_event_time || change.event_time_us == ALWAYS_US) {
    refusal = {"missing_event_time", "an erasure needs an event time: what happened until then is erased"};
    return false;
  }
  if (!change.has_known_time)
    change.known_time_us = at.broker_time_us != ALWAYS_US ? at.broker_time_us : change.event_time_us;
  const i64 future_us = table_of(change.table).future_us;
  const __int128 ahead = static_cast<__int128>(change.event_time_us) - change.known_time_us;
  if (ahead <= future_us) return true;
  refusal = {"future", "erases until " + std::to_string(static_cast<i64>(ahead)) + " us after it was known, the table's bound is " + std::to_string(future_us)};
  return false;
}

bool Writer::erase(const RowChange& change) {
  Erasing erasing(*this);
  if (!erasing.ask(change.table, change.key, change.event_time_us)) return false;
  ++sequence_;
  erasing.run();
  return true;
}

// Whether a change is of what is erased; links to erased rows that it may keep are cut where it is not.
bool Writer::is_erased(RowChange& change) {
  const TableHeader& table = table_of(change.table);
  Erasing erasing(*this);
  bool raised = false;
  for (const CellValue& cell : change.cells) {
    if (cell.index < table.column_count || cell.is_null) continue;
    const LinkHeader& link = graph_.links[table.links[cell.index - table.column_count]];
    if (!link.erases) continue;
    if (const ErasedKey* owner = erasures_.find(table_of(link.parent).name, cell.key); owner != nullptr)
      raised |= erasing.raise(change.table, change.key, owner->until_us);
  }
  if (raised) {
    ++sequence_;
    erasing.run();
  }
  const ErasedKey* erased = erasures_.find(table.name, change.key);
  if (erased != nullptr && change.event_time_us <= erased->until_us) {
    erasing.remember(table, Erasures::digest_of(table.name, change.key), change);
    return true;
  }
  erasing.cut(table, change);
  return false;
}

}  // namespace nowgraph
