// hnswlib under a filter, in its own language: a Python callback for each item would be timed instead.
//   hnswlib_filter INDEX QUERIES TRUTH K allow|exclude FILTER EF...
// FILTER is .npy: `allow` holds a uint8 for each item, `exclude` some int32 rows for each query. Prints a JSON object for each ef.
// Making the filter of a query is not timed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "hnswlib/hnswlib.h"

template <typename T>
struct Npy {
    size_t rows = 0, columns = 1;
    std::vector<T> values;

    explicit Npy(const char* path) {
        std::ifstream file(path, std::ios::binary);
        char start[10];
        if (!file.read(start, 10)) throw std::runtime_error(std::string("cannot read ") + path);
        std::string header(static_cast<unsigned char>(start[8]) | static_cast<unsigned char>(start[9]) << 8, ' ');
        file.read(header.data(), static_cast<std::streamsize>(header.size()));
        if (std::sscanf(header.c_str() + header.find("'shape': ("), "'shape': (%zu, %zu", &rows, &columns) < 1)
            throw std::runtime_error(std::string("no shape in ") + path);
        values.resize(rows * columns);
        file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(T)));
    }
    const T* row(size_t at) const { return values.data() + at * columns; }
};

struct Marks : hnswlib::BaseFilterFunctor {
    std::vector<unsigned char> pass;
    bool operator()(hnswlib::labeltype item) override { return pass[item] != 0; }
};

int main(int count, char** words) try {
    if (count < 8) throw std::runtime_error("hnswlib_filter INDEX QUERIES TRUTH K allow|exclude FILTER EF...");
    Npy<float> queries(words[2]);
    Npy<int> truth(words[3]);
    hnswlib::InnerProductSpace space(queries.columns);
    hnswlib::HierarchicalNSW<float> index(&space, words[1]);
    const size_t k = std::stoul(words[4]);
    const bool allow = std::string(words[5]) == "allow";
    Npy<int> excluded(allow ? words[3] : words[6]);
    Marks marks;
    marks.pass = allow ? Npy<unsigned char>(words[6]).values : std::vector<unsigned char>(index.cur_element_count, 1);
    for (int at = 7; at < count; at++) {
        index.setEf(std::stoul(words[at]));
        double seconds = 0;
        size_t hits = 0;
        for (size_t query = 0; query < queries.rows; query++) {
            const int *first = excluded.row(query), *last = first + excluded.columns;
            if (!allow) std::for_each(first, last, [&](int item) { marks.pass[item] = 0; });
            const auto start = std::chrono::steady_clock::now();
            auto found = index.searchKnn(queries.row(query), k, &marks);
            seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            if (!allow) std::for_each(first, last, [&](int item) { marks.pass[item] = 1; });
            for (; !found.empty(); found.pop())
                hits += std::count(truth.row(query), truth.row(query) + k, static_cast<int>(found.top().second));
        }
        std::printf("{\"ef\": %s, \"recall_at_10\": %.5f, \"qps\": %.1f}\n", words[at],
                    double(hits) / double(queries.rows * k), double(queries.rows) / seconds);
        std::fflush(stdout);
    }
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
