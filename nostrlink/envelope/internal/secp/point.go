package secp

// affine is a point of the curve y² = x³ + 7 other than infinity.
type affine struct{ x, y fe }

// jacobian is the point (x/z², y/z³), infinity when z is zero.
type jacobian struct{ x, y, z fe }

var generator = affine{
	fe{0x59f2815b16f81798, 0x029bfcdb2dce28d9, 0x55a06295ce870b07, 0x79be667ef9dcbbac},
	fe{0x9c47d08ffb10d4b8, 0xfd17b448a6855419, 0x5da4fbfc0e1108a8, 0x483ada7726a3c465},
}

// lift sets p to the point with that x coordinate whose y is even (BIP-340's
// lift_x), and reports whether there is one.
func (p *affine) lift(x *[32]byte) bool {
	if !p.x.setBytes(x) {
		return false
	}
	var t fe
	t.sqr(&p.x)
	t.mul(&t, &p.x)
	t.add(&t, &fe{7})
	if !p.y.sqrt(&t) {
		return false
	}
	t.neg(&p.y)
	p.y.choose(&t, -p.y.odd())
	p.y.normal()
	return true
}

func (p *jacobian) set(a *affine) { p.x, p.y, p.z = a.x, a.y, feOne }

// double sets p to 2a. It has no exception: infinity stays infinity, and no
// point of the curve has order two.
func (p *jacobian) double(a *jacobian) {
	var l, s, t, u fe
	p.z.mul(&a.y, &a.z)
	l.sqr(&a.x)
	s.sqr(&a.y)
	u.add(&l, &l)
	u.add(&u, &l)
	l.half(&u) // 3/2·x²
	t.mul(&a.x, &s)
	p.x.sqr(&l)
	u.add(&t, &t)
	p.x.sub(&p.x, &u) // l² − 2xs
	u.sub(&t, &p.x)
	u.mul(&u, &l)
	s.sqr(&s)
	p.y.sub(&u, &s) // l(xs − x') − s²
}

// addAffine sets p to a + b. It branches only on the sums that the formula
// does not cover: infinity, equal and opposite points.
func (p *jacobian) addAffine(a *jacobian, b *affine) {
	if a.z == (fe{}) {
		p.set(b)
		return
	}
	var zz, h, r fe
	zz.sqr(&a.z)
	h.mul(&b.x, &zz)
	zz.mul(&zz, &a.z)
	r.mul(&b.y, &zz)
	h.sub(&h, &a.x)
	r.sub(&r, &a.y)
	p.finish(a, &a.x, &a.y, &a.z, &h, &r)
}

// add sets p to a + b; see addAffine.
func (p *jacobian) add(a, b *jacobian) {
	if a.z == (fe{}) {
		*p = *b
		return
	}
	if b.z == (fe{}) {
		*p = *a
		return
	}
	var az, bz, u, s, z, h, r fe
	az.sqr(&a.z)
	bz.sqr(&b.z)
	u.mul(&a.x, &bz)
	h.mul(&b.x, &az)
	bz.mul(&bz, &b.z)
	az.mul(&az, &a.z)
	s.mul(&a.y, &bz)
	r.mul(&b.y, &az)
	z.mul(&a.z, &b.z)
	h.sub(&h, &u)
	r.sub(&r, &s)
	p.finish(a, &u, &s, &z, &h, &r)
}

// finish completes an addition: u and s are a's coordinates over the common
// denominator z, h and r what the other's exceed them by.
func (p *jacobian) finish(a *jacobian, u, s, z, h, r *fe) {
	if h.isZero() {
		if r.isZero() {
			p.double(a)
		} else {
			*p = jacobian{}
		}
		return
	}
	var hh, hhh, v, t fe
	hh.sqr(h)
	hhh.mul(&hh, h)
	v.mul(u, &hh)
	t.mul(s, &hhh)
	p.z.mul(z, h)
	p.x.sqr(r)
	p.x.sub(&p.x, &hhh)
	p.x.sub(&p.x, &v)
	p.x.sub(&p.x, &v)
	v.sub(&v, &p.x)
	v.mul(&v, r)
	p.y.sub(&v, &t)
}

// toAffine returns p, which must not be infinity, with its coordinates reduced.
func (p *jacobian) toAffine() (a affine) {
	var i, ii fe
	i.inv(&p.z)
	ii.sqr(&i)
	a.x.mul(&p.x, &ii)
	ii.mul(&ii, &i)
	a.y.mul(&p.y, &ii)
	a.x.normal()
	a.y.normal()
	return a
}

// allAffine converts points, none of them infinity, with one inversion.
func allAffine(points []jacobian) []affine {
	out := make([]affine, len(points))
	product := feOne
	for i := range points {
		out[i].x = product // of the z before this one
		product.mul(&product, &points[i].z)
	}
	product.inv(&product)
	for i := len(points) - 1; i >= 0; i-- {
		p := &points[i]
		var inv, inv2 fe
		inv.mul(&product, &out[i].x)
		product.mul(&product, &p.z)
		inv2.sqr(&inv)
		inv.mul(&inv, &inv2)
		out[i].x.mul(&p.x, &inv2)
		out[i].y.mul(&p.y, &inv)
		out[i].x.normal()
		out[i].y.normal()
	}
	return out
}
