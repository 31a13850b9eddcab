// Names to indices, built once per process from the arena's headers: what the decoder looks tables and columns up in.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "reader.hpp"

namespace nowgraph {

class Catalog {
 public:
  struct Table {
    std::string name;
    std::vector<std::string> cells;  // column names, then link names
    std::unordered_map<std::string_view, u32> index;
  };

  explicit Catalog(const Arena& arena) {
    const GraphHeader& graph = *Reader::graph_of(arena);
    tables_.resize(graph.table_count);
    for (u32 t = 0; t < graph.table_count; ++t) {
      const auto& header = *arena.at<TableHeader>(graph.tables[t]);
      Table& table = tables_[t];
      table.name = header.name;
      const auto* columns = arena.at<ColumnHeader>(header.columns);
      for (u32 c = 0; c < header.column_count; ++c) table.cells.emplace_back(columns[c].name);
      for (u32 l = 0; l < header.link_count; ++l) table.cells.emplace_back(graph.links[header.links[l]].name);
      for (u32 i = 0; i < table.cells.size(); ++i) table.index.emplace(table.cells[i], i);
    }
    for (u32 t = 0; t < graph.table_count; ++t) index_.emplace(tables_[t].name, t);
  }
  Catalog(const Catalog&) = delete;
  Catalog& operator=(const Catalog&) = delete;

  u32 find_table(std::string_view name) const {
    // Streams are runs of one table: the last one found is tried first.
    if (last_ < tables_.size() && tables_[last_].name == name) return last_;
    const auto found = index_.find(name);
    if (found == index_.end()) return NONE;
    return last_ = found->second;
  }
  // `guess` is where the column is expected: events of one table name their cells in one order.
  u32 find_cell(u32 table, std::string_view name, u32 guess) const {
    const Table& entry = tables_[table];
    if (guess < entry.cells.size() && entry.cells[guess] == name) return guess;
    const auto found = entry.index.find(name);
    return found == entry.index.end() ? NONE : found->second;
  }
  const Table& table(u32 index) const { return tables_[index]; }

 private:
  std::vector<Table> tables_;
  std::unordered_map<std::string_view, u32> index_;
  mutable u32 last_ = 0;
};

}  // namespace nowgraph
