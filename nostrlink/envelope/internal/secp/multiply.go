package secp

import "sync"

// baseTable holds, for every i, the odd multiples 1, 3 … 15 of 16ⁱ·G: 32 KB,
// made on first use and never changed.
var baseTable = sync.OnceValue(func() *[64][8]affine {
	points := make([]jacobian, 0, 64*8)
	var base jacobian
	base.set(&generator)
	for range 64 {
		points = append(points, oddMultiples(&base, 8)...)
		for range 4 {
			base.double(&base)
		}
	}
	t := new([64][8]affine)
	for i, a := range allAffine(points) {
		t[i/8][i%8] = a
	}
	return t
})

// oddMultiples returns p, 3p … (2n−1)p.
func oddMultiples(p *jacobian, n int) []jacobian {
	out := make([]jacobian, n)
	fillMultiples(out, p)
	return out
}

func fillMultiples(out []jacobian, p *jacobian) {
	var twice jacobian
	out[0] = *p
	twice.double(p)
	for i := 1; i < len(out); i++ {
		out[i].add(&out[i-1], &twice)
	}
}

// multiplyBase returns d·G without its time depending on d, which must not be
// zero. The partial sums are smaller than the next term (as scalars), except in
// the last step for a few scalars near the group order that nobody finds by
// chance, so the addition's exceptions do not occur.
func multiplyBase(d *Scalar) affine {
	u, negative := recode(d)
	table := baseTable()
	var a affine
	var sum jacobian
	for i := range 64 {
		index, neg := u.at(i)
		a.lookup(&table[i], index, neg)
		if i == 0 {
			sum.set(&a)
		} else {
			sum.addAffine(&sum, &a)
		}
	}
	result := sum.toAffine()
	var y fe
	y.neg(&result.y)
	result.y.choose(&y, negative)
	return result
}

// lookup sets a to the table's point at index, negated where the mask negative
// is all ones, reading the whole table.
func (a *affine) lookup(table *[8]affine, index, negative uint64) {
	*a = table[0]
	for i := 1; i < len(table); i++ {
		m := maskEqual(uint64(i), index)
		a.x.choose(&table[i].x, m)
		a.y.choose(&table[i].y, m)
	}
	var y fe
	y.neg(&a.y)
	a.y.choose(&y, negative)
}

// multiply returns d·p or −d·p, which have the same x coordinate, without its
// time depending on d, which must not be zero.
func multiply(d *Scalar, p *affine) affine {
	u, _ := recode(d)
	var sum jacobian
	sum.set(p)
	table := [8]affine(allAffine(oddMultiples(&sum, 8)))
	var a affine
	for i := 63; i >= 0; i-- {
		index, neg := u.at(i)
		a.lookup(&table, index, neg)
		if i == 63 {
			sum.set(&a)
			continue
		}
		for range 4 {
			sum.double(&sum)
		}
		sum.addAffine(&sum, &a)
	}
	return sum.toAffine()
}
